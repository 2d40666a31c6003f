// The peers' server with the TypeScript SDK: `node peer.mjs stdio` or `node peer.mjs http PORT`.

import { createServer } from 'node:http';
import { setTimeout } from 'node:timers/promises';

import { localhostHostValidation, localhostOriginValidation, toNodeHandler } from '@modelcontextprotocol/node';
import { McpServer, createMcpHandler } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { z } from 'zod';

import { cart, checkout, fetched, fibonacci, search, transformed } from './work.mjs';

const text = (said) => ({ content: [{ type: 'text', text: said }] });
const told = async (value) => text(JSON.stringify(await value));

// Made once: a server is made for each HTTP request, its schemas need not be.
const Echo = z.object({ text: z.string() });
const Fibonacci = z.object({ n: z.number().int().min(0).max(40) });
const Fetch = z.object({ endpoint: z.string() });
const Process = z.object({ data: z.record(z.string(), z.any()) });
const Query = z.object({ query: z.string(), delay_ms: z.number().int().min(0).max(5000) });
const Search = z.object({ category: z.string(), min_price: z.number(), max_price: z.number(), limit: z.number().int() });
const Cart = z.object({ user_id: z.string() });
const Item = z.object({ product_id: z.number().int(), quantity: z.number().int() });
const Checkout = z.object({ user_id: z.string(), items: z.array(Item).min(1) });

function peer() {
    const server = new McpServer({ name: 'peer', version: '1.0.0' });
    const tool = (name, description, inputSchema, work) => server.registerTool(name, { description, inputSchema }, work);
    tool('echo', 'Gives the text back.', Echo, async ({ text: said }) => text(said));
    tool('calculate_fibonacci', 'The nth Fibonacci number, naively.', Fibonacci, ({ n }) => told({ result: fibonacci(n) }));
    tool('fetch_external_data', 'What an HTTP endpoint says.', Fetch, ({ endpoint }) => told(fetched(endpoint)));
    tool('process_json_data', 'The strings of an object in upper case.', Process, ({ data }) => told(transformed(data)));
    tool('simulate_database_query', 'Waits as a database would.', Query, async ({ query, delay_ms }) => {
        await setTimeout(delay_ms);
        return told({ query, delay_ms, rows: 1 });
    });
    tool('search_products', 'Products of a category and a price, with their popularity.', Search, (given) => told(search(given)));
    tool('get_user_cart', "A user's cart and recent orders.", Cart, (given) => told(cart(given)));
    tool('checkout', 'Orders what is in the list.', Checkout, (given) => told(checkout(given)));
    return server;
}

if (process.argv[2] === 'stdio') serveStdio(peer);
else {
    const handle = toNodeHandler(createMcpHandler(peer, { responseMode: 'json' }));
    const [hostIsRight, originIsRight] = [localhostHostValidation(), localhostOriginValidation()];
    createServer((request, response) => {
        if (hostIsRight(request, response) && originIsRight(request, response)) handle(request, response);
    }).listen(Number(process.argv[3]), '127.0.0.1');
}
