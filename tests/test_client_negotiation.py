"""How a client finds the revision: the table in `mcpfast/client/negotiation.py`, row by row."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcpfast.client import Client, RequestTimeout
from mcpfast.errors import UNSUPPORTED_VERSION, AddressError, ConnectionClosed, MCPError
from mcpfast.protocol import types
from tests.test_client_fake import META, MODERN, Fake, FakeTransport, fake_client, run


def test_a_modern_server() -> None:
    async def server(fake: Fake) -> None:
        meta = await fake.discovered("2030-01-01", MODERN, "2025-11-25")
        assert meta == {
            META + "protocolVersion": MODERN,
            META + "clientInfo": {"name": "me", "version": "7"},
            META + "clientCapabilities": {
                "elicitation": {"form": {}},
                "roots": {},
                "extensions": {"x/y": {"a": 1}},
            },
        }
        call = await fake.receive()
        assert call["params"].pop("_meta") == meta | {META + "logLevel": "info", "mine": 1}
        assert call["params"] == {"name": "t"}
        fake.text(call, "ok")
        assert (await fake.receive())["params"]["_meta"] == meta | {META + "logLevel": "info"}
        fake.answer(fake.seen[-1], tools=[], ttlMs=0, cacheScope="private")

    async def test() -> None:
        client = fake_client(
            server,
            client_info=types.Implementation(name="me", version="7"),
            elicitation_callback=lambda *_: None,
            elicitation_modes=["form"],
            roots=[],
            extensions={"x/y": {"a": 1}},
            log_level="info",
        )
        async with client:
            assert client.protocol_version == MODERN
            assert client.server_info is not None
            assert client.server_info.name == "fake"
            await client.call_tool("t", meta={"mine": 1})
            await client.list_tools()
            with pytest.raises(RuntimeError, match="connected already"):
                await client.__aenter__()
            with pytest.raises(MCPError, match=r"use `async with client\.listen"):
                await client.subscribe_resource("x://1")

    run(test())


@pytest.mark.parametrize("answered", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_a_legacy_server_of_any_revision(answered: str) -> None:
    async def server(fake: Fake) -> None:
        params = await fake.initialized(answered, instructions="Be kind.")
        assert params == {
            "protocolVersion": "2025-11-25",
            "clientInfo": {"name": "mcpfast", "version": params["clientInfo"]["version"]},
            "capabilities": {"sampling": {"tools": {}}, "roots": {"listChanged": True}},
        }
        assert await fake.receive() == {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
        call = await fake.receive()
        assert call["params"] == {"name": "t"}
        fake.text(call, "ok")

    async def test() -> None:
        client = fake_client(
            server,
            sampling_callback=lambda *_: "x",
            sampling_capabilities=types.SamplingCapability(tools={}),
            roots=[],
        )
        async with client:
            assert client.protocol_version == answered
            assert client.instructions == "Be kind."
            await client.send_roots_list_changed()
            assert (await client.call_tool("t")).text == "ok"

    run(test())


def test_a_pinned_legacy_revision() -> None:
    async def server(fake: Fake) -> None:
        params = await fake.initialized("2025-06-18")
        assert params["protocolVersion"] == "2025-06-18"
        assert params["capabilities"] == {"elicitation": {}}  # there are no modes in this revision

    async def other(fake: Fake) -> None:
        request = await fake.receive()
        info = {"name": "fake", "version": "1"}
        fake.answer(request, {"protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": info})
        assert await fake.receive() == {}

    async def test() -> None:
        async with fake_client(server, mode="2025-06-18", elicitation_callback=lambda *_: None) as client:
            assert client.protocol_version == "2025-06-18"
        with pytest.raises(MCPError, match="the server speaks 2025-03-26, this client asked for 2025-06-18"):
            await fake_client(other, mode="2025-06-18").__aenter__()

    run(test())


def test_a_pinned_modern_revision() -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()

    async def other(fake: Fake) -> None:
        await fake.discovered("2030-01-01")
        assert await fake.receive() == {}

    async def legacy(fake: Fake) -> None:
        fake.refuse(await fake.receive(), -32601)
        assert await fake.receive() == {}

    async def test() -> None:
        async with fake_client(server, mode=MODERN) as client:
            assert client.protocol_version == MODERN
        with pytest.raises(MCPError, match="No common protocol revision: the server speaks 2030-01-01"):
            await fake_client(other, mode=MODERN).__aenter__()
        with pytest.raises(MCPError) as raised:
            await fake_client(legacy, mode=MODERN).__aenter__()
        assert raised.value.code == -32601

    run(test())


@pytest.mark.parametrize(
    ("code", "data"),
    [
        (-32601, None),
        (-32602, {"supported": [MODERN]}),
        (UNSUPPORTED_VERSION, None),
        (UNSUPPORTED_VERSION, {"supported": "none"}),
        (UNSUPPORTED_VERSION, {"supported": ["2025-11-25"]}),
        (-32000, "not initialized"),
    ],
)
def test_any_other_error_means_legacy(code: int, data: Any) -> None:
    async def server(fake: Fake) -> None:
        fake.refuse(await fake.receive(), code, "no", data)
        await fake.initialized()

    async def test() -> None:
        async with fake_client(server) as client:
            assert client.protocol_version == "2025-11-25"

    run(test())


def test_discover_results_that_are_none_or_name_legacy_revisions_alone() -> None:
    async def unreadable(fake: Fake) -> None:
        fake.answer(await fake.receive(), {"hello": "world"})
        await fake.initialized()

    async def legacy_alone(fake: Fake) -> None:
        await fake.discovered("2025-11-25")
        fake.revision = None
        await fake.initialized()

    async def test() -> None:
        for server in (unreadable, legacy_alone):
            async with fake_client(server) as client:
                assert client.protocol_version == "2025-11-25"

    run(test())


def test_another_modern_version_is_tried() -> None:
    async def server(fake: Fake) -> None:
        fake.refuse(await fake.receive(), UNSUPPORTED_VERSION, "no", {"supported": ["2031-01-01", MODERN]})
        await fake.discovered()

    async def newer(fake: Fake) -> None:
        fake.refuse(await fake.receive(), UNSUPPORTED_VERSION, "no", {"supported": ["2031-01-01"]})
        assert await fake.receive() == {}

    async def test() -> None:
        async with fake_client(server) as client:
            assert client.protocol_version == MODERN
        with pytest.raises(MCPError, match="the server speaks 2031-01-01") as raised:
            await fake_client(newer).__aenter__()
        assert raised.value.code == UNSUPPORTED_VERSION

    run(test())


def test_silence_means_legacy() -> None:
    async def server(fake: Fake) -> None:
        probe = await fake.receive()
        await fake.initialized()
        fake.answer(probe, {"late": True})
        assert (await fake.receive())["method"] == "tools/call"  # and nothing about the probe was cancelled
        fake.text(fake.seen[-1], "ok")

    async def slow_but_modern(fake: Fake) -> None:
        """It took the late probe for its era, and now refuses the handshake."""
        await fake.receive()
        request = await fake.receive()
        assert request["method"] == "initialize"
        fake.refuse(request, UNSUPPORTED_VERSION, "no", {"supported": [MODERN]})
        await fake.discovered()

    async def test() -> None:
        async with fake_client(server, probe_timeout_s=0.05) as client:
            assert client.protocol_version == "2025-11-25"
            assert (await client.call_tool("t")).text == "ok"
        async with fake_client(slow_but_modern, probe_timeout_s=0.05) as client:
            assert client.protocol_version == MODERN

    run(test())


def test_a_server_that_dies_of_the_probe_is_started_again() -> None:
    async def dies(fake: Fake) -> None:
        await fake.receive()
        fake.close()

    async def lives(fake: Fake) -> None:
        request = await fake.receive()
        assert request["method"] == "initialize"
        info = {"name": "fake", "version": "1"}
        fake.answer(request, {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info})
        await fake.receive()

    async def test() -> None:
        transport = FakeTransport(dies, lives)
        async with Client(transport) as client:
            assert client.protocol_version == "2025-11-25"
        assert transport.opened == 2
        with pytest.raises(ConnectionClosed):
            await Client(FakeTransport(dies, dies)).__aenter__()

    run(test())


def test_an_unknown_revision_and_a_refused_handshake() -> None:
    async def future(fake: Fake) -> None:
        request = await fake.receive()
        info = {"name": "fake", "version": "1"}
        fake.answer(request, {"protocolVersion": "2099-01-01", "capabilities": {}, "serverInfo": info})
        assert await fake.receive() == {}

    async def refuses(fake: Fake) -> None:
        fake.refuse(await fake.receive(), -32603, "tired")
        assert await fake.receive() == {}

    async def test() -> None:
        with pytest.raises(MCPError, match="the server speaks 2099-01-01, this client asked for 2025-11-25"):
            await fake_client(future, mode="legacy").__aenter__()
        with pytest.raises(MCPError, match="tired"):
            await fake_client(refuses, mode="legacy").__aenter__()

    run(test())


def test_a_server_that_never_answers() -> None:
    async def server(fake: Fake) -> None:
        assert (await fake.receive())["method"] == "initialize"
        assert await fake.receive() == {}  # `initialize` must not be cancelled

    async def test() -> None:
        client = fake_client(server, mode="legacy", connect_timeout_s=0.1)
        with pytest.raises(RequestTimeout, match=r"No connection to the server within 0\.1 s"):
            await client.__aenter__()
        with pytest.raises(RuntimeError, match="not connected"):
            _ = client.protocol_version

    run(test())


def test_it_can_be_entered_again_and_ids_go_on() -> None:
    ids: list[int] = []

    async def server(fake: Fake) -> None:
        await fake.discovered()
        fake.text(await fake.receive(), "ok")
        ids.extend(message["id"] for message in fake.seen)

    async def test() -> None:
        client = fake_client(server, server)
        for _ in range(2):
            async with client:
                await client.call_tool("t")
        assert ids == [1, 2, 3, 4]

    run(test())


def test_log_levels_before_2026() -> None:
    async def server(fake: Fake) -> None:
        await fake.initialized()
        request = await fake.receive()
        assert (request["method"], request["params"]) == ("logging/setLevel", {"level": "error"})
        fake.answer(request)
        fake.tell("notifications/message", level="info", data="low")
        fake.tell("notifications/message", level="alert", data="high", logger="l")
        fake.answer(await fake.receive())

    async def test() -> None:
        logs: list[Any] = []
        async with fake_client(server, log_level="error", logging_callback=logs.append) as client:
            await client.ping()
            assert [(log.level, log.logger, log.data) for log in logs] == [("alert", "l", "high")]
            with pytest.raises(ValueError, match="'loud' is unknown"):
                await client.set_logging_level("loud")

    run(test())


def test_modes_and_targets_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="mode 'fast' is unknown; use 'auto', 'legacy' or one of 2024-11-05"):
        Client("tcp://h:1", mode="fast")
    with pytest.raises(ValueError, match="elicitation_modes"):
        Client("tcp://h:1", elicitation_modes=["voice"])
    for target in (
        "tcp://nowhere",
        "tcp://h:0",
        "tcp://h:99999",
        "unix://relative",
        "nonsense",
        "gone.py",
        5,
        None,
        [],
    ):
        with pytest.raises(AddressError):
            Client(target)


def test_sockets(tmp_path: Any) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fake = Fake(reader, writer)
        await fake.discovered()
        fake.text(await fake.receive(), "ok")
        assert await fake.receive() == {}
        writer.close()
        await writer.wait_closed()

    async def test() -> None:
        tcp = await asyncio.start_server(serve, "127.0.0.1", 0)
        unix = await asyncio.start_unix_server(serve, str(tmp_path / "s.sock"))
        port = tcp.sockets[0].getsockname()[1]
        async with tcp, unix:
            for address in (f"tcp://127.0.0.1:{port}", f"unix://{tmp_path}/s.sock"):
                async with Client(address, timeout_s=5) as client:
                    assert (await client.call_tool("t")).text == "ok"
        with pytest.raises(
            AddressError, match=rf"Cannot connect to 127\.0\.0\.1 port {port}: Connection refused"
        ):
            await Client(f"tcp://127.0.0.1:{port}").__aenter__()
        with pytest.raises(AddressError, match=r"Cannot connect to /no/such\.sock: No such file"):
            await Client("unix:///no/such.sock").__aenter__()
        await asyncio.sleep(0.05)

    run(test())
