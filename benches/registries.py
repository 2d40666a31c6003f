"""Registries for the figures of tenants, and credentials for them: API keys and a JWT, as an Authorization says them."""

import base64
import hmac
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

from benches.servers.tenants import AUDIENCE, ISSUER, SCOPE, SECRET, TENANT
from mcpfast.tenancy.api_keys import new_key

# Every limit that is looked at before a call, and none that refuses one.
EVERYTHING = (
    "{ calls_per_s = 1e9, bytes_per_s = 1e12, concurrent_calls_max = 1_000, request_bytes_max = 1_048_576, "
    "response_bytes_max = 16_777_216, daily_units_max = 1e12 }"
)
TOKEN_S = 24 * 3600
ONE_TENANT = Path(__file__).with_name("servers") / "one_tenant.toml"


@dataclass(frozen=True, slots=True)
class Registry:
    """A file of TOML, and the credentials that it knows."""

    text: str
    credentials: tuple[str, ...]


def plan(
    name: str = "bench", quota: str = EVERYTHING, principal_quota: str = EVERYTHING, deny: str = ""
) -> str:
    denied = f'["{deny}"]' if deny else "[]"
    return (
        f'[plans.{name}]\nscopes = ["{SCOPE}"]\nquota = {quota}\n'
        f"principal_quota = {principal_quota}\ndeny = {denied}\n\n"
    )


def tenant(id: str, *, of_plan: str = "bench", name: str = "") -> str:
    return f'[tenants.{id}]\nplan = "{of_plan}"\nname = "{name or id}"\n\n'


@cache
def crowd(tenants: int, keys: int, deny: str = "", name: str = "A tenant") -> Registry:
    """So many tenants, each with one principal, and so many keys, which go around them; the same in each run."""
    random = Random(1)
    parts = [plan(deny=deny)]
    parts += [tenant(f"tenant-{number}", name=f"{name} {number}") for number in range(tenants)]
    credentials = []
    for number in range(keys):
        owner = number % tenants
        text, credential = key(f"tenant-{owner}", f"person-{owner}", random)
        parts.append(text)
        credentials.append(credential)
    return Registry("".join(parts), tuple(credentials))


def key(tenant_id: str, principal: str, random: Random) -> tuple[str, str]:
    """An API key: its table, and the Authorization of its owner."""
    made = new_key(tenant_id, principal, scopes=frozenset({SCOPE}), now_s=0.0, random=random.randbytes)
    record = made.record
    table = (
        f'[keys.{record.id}]\nsha256 = "{record.sha256}"\ntenant = "{tenant_id}"\nprincipal = "{principal}"\n'
        f'scopes = ["{SCOPE}"]\n\n'
    )
    return table, f"Bearer {made.key}"


def token(tenant_id: str = TENANT, scope: str = SCOPE) -> str:
    """A JWT of the issuer that servers/tenants.py believes, as an Authorization."""
    now_s = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "person",
        "tenant": tenant_id,
        "scope": scope,
        "iat": now_s,
        "exp": now_s + TOKEN_S,
    }
    signed = f"{_segment({'alg': 'HS256', 'typ': 'at+jwt'})}.{_segment(claims)}"
    return f"Bearer {signed}.{_base64(hmac.digest(SECRET, signed.encode(), sha256))}"


def _segment(value: dict[str, object]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def kept(text: str) -> Iterator[str]:
    """A registry in a file for as long as the block runs: its path."""
    with tempfile.TemporaryDirectory(prefix="mcpfast-bench-") as folder:
        file = Path(folder) / "tenants.toml"
        file.write_text(text)
        yield str(file)
