// What the tools do: benches/peers/README.md says it for all peers. Knows nothing of MCP.

import Redis from 'ioredis';

const API = process.env.API_URL ?? 'http://127.0.0.1:8100';
let client;

// One connection; commands of one turn of the loop go out together. Made when it is first needed.
function redis() {
    return (client ??= new Redis(process.env.REDIS_URL ?? 'redis://127.0.0.1:6379', { enableAutoPipelining: true }));
}

async function ask(url, options) {
    const response = await fetch(url, options);
    return { status: response.status, data: await response.json() };
}

export const fibonacci = (n) => (n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2));

function upper(value) {
    if (typeof value === 'string') return value.toUpperCase();
    if (Array.isArray(value)) return value.map(upper);
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, upper(member)]));
}

export const transformed = (data) => ({ original_keys: Object.keys(data), transformed_data: upper(data) });

export const fetched = (endpoint) => ask(endpoint);

export async function search({ category, min_price, max_price, limit }) {
    const query = new URLSearchParams({ category, min_price, max_price, limit });
    const [{ data }, popular] = await Promise.all([
        ask(`${API}/products/search?${query}`),
        redis().zrevrange('bench:popular', 0, 9),
    ]);
    const ids = popular.map((member) => Number(member.slice('product:'.length)));
    const products = data.products.map(({ id, sku, name, price, rating }) => {
        return { id, sku, name, price, rating, popularity_rank: ids.indexOf(id) + 1 };
    });
    return { category, total_found: data.total_found, products, top_popular_ids: ids, server_type: 'typescript' };
}

export async function cart({ user_id }) {
    const kept = await redis().hgetall(`bench:cart:${user_id}`);
    if (!kept.items) throw new Error('there is no such cart');
    const items = JSON.parse(kept.items);
    const [{ data }, orders] = await Promise.all([
        ask(`${API}/products/${items[0].product_id}`),
        redis().lrange(`bench:history:${user_id}`, 0, 4),
    ]);
    const recent_history = orders.map((order) => JSON.parse(order));
    return { user_id, items, first_product: data, recent_history, total: Number(kept.total), server_type: 'typescript' };
}

export async function checkout({ user_id, items }) {
    const body = JSON.stringify({ user_id, items });
    const number = Number(user_id.slice(user_id.lastIndexOf('-') + 1)) % 100;
    const [{ data }, count] = await Promise.all([
        ask(`${API}/cart/calculate`, { method: 'POST', headers: { 'content-type': 'application/json' }, body }),
        redis().incr(`bench:ratelimit:user-${String(number).padStart(5, '0')}`),
        redis().rpush(`bench:history:${user_id}`, body),
        redis().zincrby('bench:popular', 1, `product:${items[0].product_id}`),
    ]);
    const { order_id, total } = data;
    return { order_id, status: 'confirmed', total, items_count: items.length, rate_limit_count: count, server_type: 'typescript' };
}
