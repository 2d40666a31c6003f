"""Fills an empty Redis for the shop: `python benches/shop/seed.py redis://127.0.0.1:6379`. README.md says what with."""

import json
import sys

import redis

CARTS, HISTORIES, ORDERS, PRODUCTS, COUNTERS = 10_000, 1_000, 20, 100_000, 100
BATCH = 1_000


def items_of(user: int) -> list[dict[str, int]]:
    return [{"product_id": (user * 7 + n * 31) % PRODUCTS, "qty": 1 + n} for n in range(2 + user % 2)]


def order_of(user: int, number: int) -> str:
    product = (user * 13 + number) % PRODUCTS
    return json.dumps({"order_id": f"old-{user:05d}-{number}", "product_id": product, "total": 10.5 + number})


def seed(store: redis.Redis) -> None:
    store.flushdb()
    pipe = store.pipeline(transaction=False)
    for user in range(CARTS):
        cart = {
            "user_id": f"user-{user:05d}",
            "items": json.dumps(items_of(user)),
            "created": "2026-01-01T00:00:00Z",
            "expires": "2027-01-01T00:00:00Z",
            "total": f"{20 + user % 100}.50",
        }
        pipe.hset(f"bench:cart:user-{user:05d}", mapping=cart)
        if user % BATCH == BATCH - 1:
            pipe.execute()
    for user in range(HISTORIES):
        pipe.rpush(f"bench:history:user-{user:05d}", *(order_of(user, number) for number in range(ORDERS)))
    for first in range(0, PRODUCTS, BATCH):
        pipe.zadd("bench:popular", {f"product:{i}": i * 7 % 10_000 for i in range(first, first + BATCH)})
    for user in range(COUNTERS):
        pipe.set(f"bench:ratelimit:user-{user:05d}", 0)
    pipe.execute()


if __name__ == "__main__":
    seed(redis.Redis.from_url(sys.argv[1]))
