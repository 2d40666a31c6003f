"""What a client must bear: dying, silent, garbling, repeating servers.

The server is a script (`test_client_fake.py`).
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from mcpfast.client import RequestTimeout, session
from mcpfast.errors import INTERNAL_ERROR, PARSE_ERROR, ConnectionClosed, MCPError
from mcpfast.limits import Limits
from tests.test_client_fake import Fake, fake_client, run


@pytest.mark.parametrize("half", [b"", b'{"jsonrpc":"2.0","id":'], ids=["clean", "half a message"])
def test_a_server_that_goes_away_ends_every_wait(half: bytes) -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        for _ in range(3):
            await fake.receive()
        fake.send(half)
        fake.close()

    async def test() -> None:
        async with fake_client(server, timeout_s=None) as client:
            calls = [asyncio.create_task(client.call_tool("t")) for _ in range(3)]
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(error) for error in done] == [ConnectionClosed] * 3
            assert len({id(error) for error in done}) == 3
            with pytest.raises(ConnectionClosed, match="The server closed the connection"):
                await client.list_tools()
            await client.notify("notifications/whatever")  # goes nowhere, and does no harm

    run(test())


def test_answers_out_of_order_twice_late_and_to_nobody() -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        first, second = await fake.receive(), await fake.receive()
        fake.text(second, "second")
        fake.text(second, "second again")
        fake.refuse(second, -1)
        fake.send({"jsonrpc": "2.0", "id": 999, "result": {}})
        fake.send({"jsonrpc": "2.0", "id": str(first["id"]), "result": {"content": []}})
        fake.send({"jsonrpc": "2.0", "id": "x", "error": {"code": 1, "message": "m"}})
        fake.text(first, "first")
        late = await fake.receive()
        assert (await fake.receive())["params"]["requestId"] == late["id"]
        fake.text(late, "late")
        fake.text(await fake.receive(), "last")

    async def test() -> None:
        async with fake_client(server) as client:
            both = await asyncio.gather(client.call_tool("a"), client.call_tool("b"))
            assert [result.text for result in both] == ["first", "second"]
            with pytest.raises(RequestTimeout):
                await client.call_tool("c", timeout_s=0.05)
            assert (await client.call_tool("d")).text == "last"

    run(test())


def test_what_is_no_message_is_told_and_skipped() -> None:
    lines = [
        b"Listening on port 3000\n",
        b"\xff\xfe\n",
        b'{"jsonrpc":"2.0","id":[1],"result":{}}\n',
        b'{"jsonrpc":"2.0","id":1}\n',
        b"[" * 5_000 + b"\n",
    ]
    told: list[Any] = []

    async def server(fake: Fake) -> None:
        await fake.discovered()
        call = await fake.receive()
        fake.send(*lines, b"\n", b"\r\n", b"  \n")
        fake.text(call, "fine")
        await fake.receive()
        fake.close()

    async def test() -> None:
        async with fake_client(server, message_handler=told.append) as client:
            assert (await client.call_tool("a")).text == "fine"
            assert [error.code for error in told] == [PARSE_ERROR] * len(lines)
            assert "Listening on port 3000" in str(told[0])
            with pytest.raises(ConnectionClosed, match="a line that is no message"):
                await client.call_tool("b")

    run(test())


def test_line_ends_and_batches_and_any_split() -> None:
    async def server(fake: Fake) -> None:
        await fake.initialized("2025-03-26")
        one, two, three = [await fake.receive() for _ in range(3)]
        batch = (
            b'[{"jsonrpc":"2.0","id":%d,"result":{}},{"jsonrpc":"2.0","method":"notifications/tools/list_changed"},'
            b'{"jsonrpc":"2.0","id":%d,"error":{"code":-7,"message":"seven"}}]\r\n' % (one["id"], two["id"])
        )
        for byte in batch:
            fake.send(bytes([byte]))
            await asyncio.sleep(0)
        fake.send(b'{ "id" : %d, "result" : {} , "jsonrpc" : "2.0", "extra": 1}\r\n' % three["id"])

    async def test() -> None:
        told: list[Any] = []
        async with fake_client(server, message_handler=told.append) as client:
            one, two, three = await asyncio.gather(
                client.send_ping(), client.send_ping(), client.send_ping(), return_exceptions=True
            )
            assert not isinstance(one, BaseException)
            assert not isinstance(three, BaseException)
            assert isinstance(two, MCPError)
            assert (two.code, two.message) == (-7, "seven")
            assert [message.method for message in told] == ["notifications/tools/list_changed"]

    run(test())


def test_a_line_beyond_the_limit() -> None:
    """It costs the call it answers, if that can be seen, and never the memory."""

    async def server(fake: Fake) -> None:
        await fake.discovered()
        big = await fake.receive()
        fake.send(b'{"jsonrpc":"2.0","id":%d,"result":{"content":"' % big["id"])
        for _ in range(40):
            fake.send(b"x" * 1_000)
            await asyncio.sleep(0)
        fake.send(b'"}}\n')
        fake.text(await fake.receive(), "fine")
        fake.text(await fake.receive(), "y" * 20_000)  # in one piece
        await fake.receive()
        fake.send(b'{"jsonrpc":"2.0","result":{"x":"' + b"x" * 20_000 + b'"},"id":6}\n')
        assert await fake.receive() == {}

    async def test() -> None:
        async with fake_client(server, limits=Limits(frame_bytes_max=10_000), timeout_s=None) as client:
            with pytest.raises(MCPError, match=r"longer than limits\.frame_bytes_max \(10000 bytes\)"):
                await client.call_tool("big")
            assert (await client.call_tool("small")).text == "fine"
            with pytest.raises(MCPError, match="longer than limits"):
                await client.call_tool("big")
            with pytest.raises(ConnectionClosed, match="longer than limits"):  # nobody can know whose it was
                await client.call_tool("odd")

    run(test())


def test_malformed_errors_and_results() -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        for error in ({"code": "x"}, "broken", None, {"code": 5, "message": "m", "data": [1]}):
            request = await fake.receive()
            fake.send({"jsonrpc": "2.0", "id": request["id"], "error": error})
        request = await fake.receive()
        fake.send({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "what?"}})
        fake.answer(await fake.receive(), {"content": 5})
        fake.answer(await fake.receive(), {"tools": [{"name": "t"}]})

    async def test() -> None:
        async with fake_client(server) as client:
            for code, data in (
                (INTERNAL_ERROR, None),
                (INTERNAL_ERROR, None),
                (INTERNAL_ERROR, None),
                (5, [1]),
            ):
                with pytest.raises(MCPError) as raised:
                    await client.call_tool("t")
                assert (raised.value.code, raised.value.data) == (code, data)
            with pytest.raises(MCPError, match="what"):  # no id, but only one call that it can be about
                await client.call_tool("t")
            with pytest.raises(MCPError, match="answer to tools/call cannot be read"):
                await client.call_tool("t")
            with pytest.raises(MCPError, match=r"answer to tools/list cannot be read.*inputSchema"):
                await client.list_tools()

    run(test())


def test_a_burst_is_one_write() -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        chunk = await fake.reader.read(1 << 20)
        assert chunk.count(b"\n") == 50
        for number in range(2, 52):
            fake.text({"id": number}, "ok")

    async def test() -> None:
        async with fake_client(server) as client:
            await asyncio.gather(*(client.call_tool("t") for _ in range(50)))

    run(test())


def test_a_server_that_reads_nothing_holds_the_calls_up_and_memory_stays() -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        fake.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        fake.writer.transport.resume_reading()  # type: ignore[attr-defined]
        while (await fake.receive()).get("method") == "tools/call":
            fake.text(fake.seen[-1], "ok")

    async def test() -> None:
        limits = Limits(output_high_bytes=10_000)
        async with fake_client(server, limits=limits, timeout_s=10) as client:
            calls = [asyncio.create_task(client.call_tool("t", {"text": "x" * 50_000})) for _ in range(100)]
            await asyncio.sleep(0.05)
            connection = client._connection
            assert connection is not None
            buffered = connection.session.link._writer.transport.get_write_buffer_size()  # type: ignore[attr-defined]
            assert connection.session.link._outbox_bytes + buffered < 1_000_000
            results = await asyncio.gather(*calls)
            assert {result.text for result in results} == {"ok"}

    run(test())


def test_leaving_ends_what_waits_and_says_goodbye_first() -> None:
    seen: list[dict[str, Any]] = []

    async def server(fake: Fake) -> None:
        await fake.discovered()
        await fake.receive()
        while message := await fake.receive():
            seen.append(message)

    async def test() -> None:
        async with fake_client(server, timeout_s=None) as client:
            waiting = asyncio.create_task(client.call_tool("t"))
            given_up = asyncio.create_task(client.call_tool("u"))
            await asyncio.sleep(0.05)
            given_up.cancel()
            await asyncio.sleep(0)
        with pytest.raises(ConnectionClosed, match="The client was closed"):
            await waiting
        assert [message["method"] for message in seen] == ["tools/call", "notifications/cancelled"]
        assert seen[1]["params"]["requestId"] == seen[0]["id"]
        with pytest.raises(RuntimeError, match="not connected"):
            await client.list_tools()

    run(test())


def test_a_call_cancelled_in_the_turn_of_its_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        fake.refuse(await fake.receive(), -1, "too late")
        assert (await fake.receive())["method"] == "tools/list"  # and no `cancelled` for what was answered
        fake.answer(fake.seen[-1], tools=[], ttlMs=0, cacheScope="private")

    async def test() -> None:
        async with fake_client(server) as client:
            take = session.Session._take_answer
            call = asyncio.create_task(client.call_tool("t"))

            def take_and_cancel(self: session.Session, *answer: Any) -> None:
                take(self, *answer)
                call.cancel()

            monkeypatch.setattr(session.Session, "_take_answer", take_and_cancel)
            with pytest.raises(asyncio.CancelledError):
                await call
            assert (await client.list_tools()).tools == []

    run(test())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_call_cancelled_before_the_connection_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        await asyncio.sleep(0.1)

    async def test() -> None:
        async with fake_client(server, limits=Limits(output_high_bytes=10)) as client:
            calls = [asyncio.create_task(client.call_tool("t")) for _ in range(2)]
            await asyncio.sleep(0)
            connection = client._connection
            assert connection is not None
            assert not connection.session.link._room.is_set()  # the second call has not even been sent
            calls[1].cancel()
            connection.session.end("the end")
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(error) for error in done] == [ConnectionClosed, asyncio.CancelledError]

    run(test())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_mistake_of_ours_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        fake.text(await fake.receive(), "ok")

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a mistake")

    async def test() -> None:
        async with fake_client(server, timeout_s=None) as client:
            monkeypatch.setattr(session.Session, "_take_answer", broken)
            with pytest.raises(ConnectionClosed, match="The client failed while it read a message"):
                await client.call_tool("t")

    run(test())
    assert "ZeroDivisionError: a mistake" in caplog.text
