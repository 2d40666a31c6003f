"""A head that a client sends again goes past the parser: the same answers as on a connection that has seen nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.test_http import Browser, Tools, connect, initialized, modern, request, rpc, serving
from tests.wire import run

KINDS = {
    "Host": "localhost",
    "Content_Type": "application/json",
    "Accept": "application/json, text/event-stream",
}


def messages() -> list[bytes]:
    """Requests as clients send them, and as they should not."""
    found = []
    for text in ("a", "b" * 40, "ü" * 300):
        message, headers = modern("tools/call", {"name": "echo", "arguments": {"text": text}})
        body = json.dumps(message).encode()
        found.append(request("POST", "/mcp", body, **KINDS, **headers))
        found.append(request("POST", "/mcp", body, **KINDS, **{**headers, "Mcp_Name": "other"}))
        found.append(request("POST", "/mcp", json.dumps(message, indent=1).encode(), **KINDS, **headers))
    body = json.dumps(rpc("tools/call", {"name": "echo", "arguments": {"text": "c"}}, 7)).encode()
    found.append(request("POST", "/mcp", body, **KINDS, Mcp_Session_Id="SESSION"))
    found.append(request("POST", "/mcp", body, **KINDS, Mcp_Session_Id="unknown"))
    found.append(request("POST", "/mcp", b"{", **KINDS, Mcp_Session_Id="SESSION"))
    found.append(request("POST", "/mcp", b"", **KINDS, Mcp_Session_Id="SESSION"))
    steps, headers = modern("tools/call", {"name": "steps", "arguments": {"n": 2}}, progressToken=1)
    found.append(request("POST", "/mcp", json.dumps(steps).encode(), **KINDS, **headers))
    found.append(request("POST", "/mcp", body, **{**KINDS, "Host": "evil.example"}, Mcp_Session_Id="SESSION"))
    found.append(
        request("POST", "/mcp", body, **KINDS, Origin="http://evil.example", Mcp_Session_Id="SESSION")
    )
    found.append(request("GET", "/nowhere", Host="localhost"))
    found += [re.sub(rb"Content-Length: (\d+)", rb"Content-Length: 00\1", one) for one in found[:1]]
    found += [one.replace(b"Content-Length", b"content-length") for one in found[:2]]
    return found


GOOD = messages()
BAD = [  # what comes behind is not to be trusted
    GOOD[0].replace(b"Content-Length: ", b"Content-Length: +"),
    GOOD[0].replace(b"Content-Length: ", b"Content-Length: 5\r\nContent-Length: "),
    GOOD[0].replace(b"Content-Length: ", b"Content-Length: 99999999999"),
    GOOD[0].replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nContent-Length: "),
    re.sub(rb"Content-Length: (\d+)", rb"Content-Length: \1x", GOOD[0]),
    re.sub(rb"Content-Length: (\d+)", rb"Content-Length: ", GOOD[0]),
]


def seen(answer: Any) -> tuple[int, str, Any]:
    return answer.status, answer.headers.get("content-type", ""), answer.messages or answer.body


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(range(len(GOOD))), st.sampled_from(["whole", "split", "behind", "crlf"])),
        min_size=2,
        max_size=12,
    ),
    st.sampled_from([None, *range(len(BAD))]),
)
def test_a_head_that_is_known_changes_nothing(sequence: list[tuple[int, str]], bad: int | None) -> None:
    async def fresh(port: int, raw: bytes) -> tuple[int, str, Any]:
        async with await connect(port) as browser:
            browser.write(raw)
            return seen(await browser.read())

    async def write(browser: Browser, raw: bytes, how: str, following: bytes) -> bytes:
        """Writes a request; gives what was written of the next one already."""
        if how == "split":
            third = len(raw) // 3
            for part in (raw[:third], raw[third:-third], raw[-third:]):
                browser.write(part)
                await asyncio.sleep(0.001)
        elif how == "crlf":
            browser.write(b"\r\n" + raw)
        elif how == "behind":
            browser.write(raw + following)
            return following
        else:
            browser.write(raw)
        return b""

    async def scenario() -> None:
        async with serving(Tools().server()) as (_, port), await connect(port) as opening:
            session = (await initialized(opening)).encode()
            raws = [GOOD[number].replace(b"SESSION", session) for number, _ in sequence]
            expected = [await fresh(port, raw) for raw in raws]
            async with await connect(port) as browser:
                written = b""
                for i, (_, how) in enumerate(sequence):
                    if not written:
                        following = raws[i + 1] if i + 1 < len(raws) else b""
                        written = await write(browser, raws[i], how, following)
                    else:
                        written = b""
                    assert seen(await browser.read()) == expected[i], (i, sequence)
                if bad is not None:
                    browser.write(BAD[bad])
                    answer = await browser.read()
                    assert answer.status in (400, 413) and answer.headers["connection"] == "close"
                    with contextlib.suppress(ConnectionResetError):
                        assert await browser.closed() == b""

    run(scenario())


def test_a_listener_remembers_so_many_heads_and_no_more() -> None:
    async def scenario() -> None:
        async with serving(Tools().server()) as (_, port), await connect(port) as browser:
            message, headers = modern("tools/call", {"name": "echo", "arguments": {"text": "x"}})
            for number in (*range(1_100), *range(1_100)):  # what comes once is not kept
                assert (await browser.ask(message, **headers, X_Number=str(number))).status == 200
            large = {"X_Large": "y" * 3_000}
            for _ in range(3):
                assert (await browser.ask(message, **headers, **large)).status == 200
            for number in (0, 1_099):
                assert (await browser.ask(message, **headers, X_Number=str(number))).status == 200

    run(scenario())


def test_a_head_is_kept_when_it_comes_again_and_not_before() -> None:
    def kept() -> int:
        gc.collect()
        return sum(type(one).__name__ == "KnownHead" for one in gc.get_objects())

    async def scenario() -> None:
        async with serving(Tools().server()) as (_, port), await connect(port) as browser:
            message, headers = modern("tools/call", {"name": "echo", "arguments": {"text": "x"}})
            before, found = kept(), []
            for _ in range(3):
                for number in range(50):
                    assert (await browser.ask(message, **headers, X_Number=str(number))).status == 200
                found.append(kept() - before)
        assert found[0] <= 2  # two hashes of 50 may meet
        assert 45 <= found[1] <= found[2] <= 50

    run(scenario())
