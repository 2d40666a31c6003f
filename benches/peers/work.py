"""What the tools of the Python peers do, with httpx and redis-py: README.md says it for all peers. Knows nothing of MCP."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

API = os.environ.get("API_URL", "http://127.0.0.1:8100")
REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
CONNECTIONS_MAX = 64


class Http:
    def __init__(self) -> None:
        import httpx

        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
        self.client = httpx.AsyncClient(limits=limits)

    async def get(self, url: str, **params: Any) -> tuple[int, Any]:
        response = await self.client.get(url, params=params or None)
        return response.status_code, response.json()

    async def post(self, url: str, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"}
        return (await self.client.post(url, content=body, headers=headers)).json()


class Work:
    """Clients are made when they are first needed: an echo server starts without them."""

    def __init__(self, server_type: str) -> None:
        self.server_type = server_type
        self._http: Http | None = None
        self._redis: Any = None

    @property
    def http(self) -> Http:
        if self._http is None:
            self._http = Http()
        return self._http

    @property
    def redis(self) -> Any:
        if self._redis is None:
            from redis.asyncio import BlockingConnectionPool, Redis

            pool = BlockingConnectionPool.from_url(
                REDIS, max_connections=CONNECTIONS_MAX, decode_responses=True
            )
            self._redis = Redis(connection_pool=pool)
        return self._redis

    async def fetch(self, endpoint: str) -> dict[str, Any]:
        status, data = await self.http.get(endpoint)
        return {"status": status, "data": data}

    async def search(self, category: str, min_price: float, max_price: float, limit: int) -> dict[str, Any]:
        query = {"category": category, "min_price": min_price, "max_price": max_price, "limit": limit}
        (_, found), popular = await asyncio.gather(
            self.http.get(f"{API}/products/search", **query), self.redis.zrevrange("bench:popular", 0, 9)
        )
        ids = [int(member.removeprefix("product:")) for member in popular]
        ranks = {id_: place for place, id_ in enumerate(ids, 1)}
        products = [
            {name: product[name] for name in ("id", "sku", "name", "price", "rating")}
            | {"popularity_rank": ranks.get(product["id"], 0)}
            for product in found["products"]
        ]
        return {
            "category": category,
            "total_found": found["total_found"],
            "products": products,
            "top_popular_ids": ids,
            "server_type": self.server_type,
        }

    async def cart(self, user_id: str) -> dict[str, Any]:
        cart = await self.redis.hgetall(f"bench:cart:{user_id}")
        items = json.loads(cart["items"])
        (_, product), orders = await asyncio.gather(
            self.http.get(f"{API}/products/{items[0]['product_id']}"),
            self.redis.lrange(f"bench:history:{user_id}", 0, 4),
        )
        return {
            "user_id": user_id,
            "items": items,
            "first_product": product,
            "recent_history": [json.loads(order) for order in orders],
            "total": float(cart["total"]),
            "server_type": self.server_type,
        }

    async def checkout(self, user_id: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        body = json.dumps({"user_id": user_id, "items": items})
        number = int(user_id.rpartition("-")[2]) % 100
        price, count, _, _ = await asyncio.gather(
            self.http.post(f"{API}/cart/calculate", body.encode()),
            self.redis.incr(f"bench:ratelimit:user-{number:05d}"),
            self.redis.rpush(f"bench:history:{user_id}", body),
            self.redis.zincrby("bench:popular", 1, f"product:{items[0]['product_id']}"),
        )
        return {
            "order_id": price["order_id"],
            "status": "confirmed",
            "total": price["total"],
            "items_count": len(items),
            "rate_limit_count": count,
            "server_type": self.server_type,
        }


def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def transformed(data: dict[str, Any]) -> dict[str, Any]:
    return {"original_keys": list(data), "transformed_data": upper(data)}


def upper(value: Any) -> Any:
    if isinstance(value, str):
        return value.upper()
    if isinstance(value, dict):
        return {name: upper(member) for name, member in value.items()}
    return [upper(item) for item in value] if isinstance(value, list) else value
