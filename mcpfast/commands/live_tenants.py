"""The tenants of a live server, by its admin API (transports/web/admin.py): what `mcpfast tenant --url` asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from mcpfast.arguments import Refusal
from mcpfast.client.endpoint import Endpoint, body_of
from mcpfast.client.transport import HttpServer, without_secrets
from mcpfast.errors import McpFastError
from mcpfast.tenancy.administration import KeyWanted, Known, plain
from mcpfast.tenancy.api_keys import NewKey
from mcpfast.tenancy.identity import TenantRecord
from mcpfast.tenancy.key_records import KeyRecord

T = TypeVar("T")
CONNECT_S = 10.0
ANSWER_S = 60.0  # for a whole answer; the server gives up after 30
ANSWER_BYTES_MAX = 64 << 20
PATH = "/admin"
SWITCH = "switch it on there ([tenancy] admin = true, or Tenancy(admin=True)), and give --url without the path of MCP"


class NotDone(McpFastError):
    """Why a live server did not do it, in one line."""


class LiveTenants:
    """One server. Raises Refusal for a URL that is none of a server, NotDone for what the server says no to."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise Refusal(f"--url {without_secrets(url)}: write http://HOST:PORT or https://HOST")
        if parts.username is not None:
            raise Refusal("--url has no user in it: the key comes from the environment")
        self._base = url.rstrip("/").removesuffix(PATH) + PATH
        self._authorization = f"Bearer {key}"

    async def tenants(self) -> list[TenantRecord]:
        records: list[TenantRecord] = []
        page = "/tenants"
        while page:
            answer = await self._ask("GET", page)
            records += _read(answer.get("tenants"), list[TenantRecord])
            page = f"/tenants?after={quote(str(answer['after']))}" if answer.get("after") else ""
        return records

    async def tenant(self, id: str) -> Known:
        answer = await self._ask("GET", f"/tenants/{_part(id)}")
        keys, live = answer.pop("keys", []), answer.pop("live", {})
        return Known(_read(answer, TenantRecord), tuple(map(_key, keys)), live)

    async def add(self, settings: Mapping[str, Any]) -> TenantRecord:
        return _read(await self._ask("POST", "/tenants", settings), TenantRecord)

    async def change(self, id: str, settings: Mapping[str, Any]) -> TenantRecord:
        return _read(await self._ask("PATCH", f"/tenants/{_part(id)}", settings), TenantRecord)

    async def suspend(self, id: str) -> TenantRecord:
        return _read(await self._ask("POST", f"/tenants/{_part(id)}/suspend"), TenantRecord)

    async def resume(self, id: str) -> TenantRecord:
        return _read(await self._ask("POST", f"/tenants/{_part(id)}/resume"), TenantRecord)

    async def remove(self, id: str) -> TenantRecord:
        return _read(await self._ask("DELETE", f"/tenants/{_part(id)}"), TenantRecord)

    async def new_key(self, tenant: str, wanted: KeyWanted) -> NewKey:
        answer = await self._ask("POST", f"/tenants/{_part(tenant)}/keys", plain(wanted))
        return NewKey(str(answer.pop("api_key", "")), _key(answer))

    async def revoke_key(self, id: str) -> KeyRecord:
        return _key(await self._ask("DELETE", f"/keys/{_part(id)}"))

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the server answers. Raises NotDone, AddressError where it is not to be reached, and MCPErrors of a connection."""
        endpoint = Endpoint(
            HttpServer(self._base + path, authorization=self._authorization, connect_s=CONNECT_S)
        )
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = None if body is None else msgspec.json.encode(body)
        endpoint.open()
        try:
            async with asyncio.timeout(ANSWER_S):
                async with endpoint.request(method, headers, data, first_byte_s=None) as response:
                    status = response.status
                    said = await body_of(response, ANSWER_BYTES_MAX)
        except TimeoutError:
            raise NotDone(f"{self._shown} did not answer within {ANSWER_S:g} s") from None
        finally:
            await endpoint.close()
        return self._taken(status, _object(said or b""), endpoint)

    def _taken(self, status: int, answer: dict[str, Any] | None, endpoint: Endpoint) -> dict[str, Any]:
        """The answer, where it says that it was done."""
        if answer is not None and 200 <= status < 300:
            return answer
        text = endpoint.blotted(str(answer["error"])) if answer is not None and "error" in answer else ""
        if status in (401, 403):
            raise NotDone(f"{self._shown} lets this key do nothing ({status}): {text or 'it says no more'}")
        if text:
            raise NotDone(text)
        if status == 404:
            raise NotDone(f"{self._shown} has no admin API (404): {SWITCH}")
        raise NotDone(f"{self._shown} answered with HTTP {status}, and not as an admin API does")

    @property
    def _shown(self) -> str:
        return without_secrets(self._base)


def _part(id: str) -> str:
    """As a part of a path: one, whatever stands in it."""
    return quote(id, safe="")


def _object(said: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(said, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _read(answer: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise NotDone(f"the server's answer is that of another version: {error}") from None


def _key(answer: Any) -> KeyRecord:
    """What a server tells of a key is everything but what proves it."""
    return _read({"sha256": "", **answer} if isinstance(answer, dict) else answer, KeyRecord)
