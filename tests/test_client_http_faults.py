"""What a client over HTTP must bear, and what it must keep to itself. The server is a script."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mcpfast.client import Client, HttpError, HttpServer, RequestTimeout
from mcpfast.errors import AddressError, ConnectionClosed, MCPError
from mcpfast.limits import Limits
from tests.http_peer import FakeHttp, Reply, Request, answering, event, legacy, modern
from tests.test_client_fake import run

pytest.importorskip("aiohttp", reason="the client needs it for HTTP: pip install 'mcpfast[http]'")


def test_answers_that_are_none() -> None:
    async def test() -> None:
        faults = answering(
            lambda reply: reply.raw(202),
            lambda reply: reply.raw(200, b"<html>", "text/html"),
            lambda reply: reply.raw(200, b"{}"),
            lambda reply: reply.raw(200, b"nonsense"),
            lambda reply: reply.raw(200, b'{"jsonrpc":"2.0","id":999,"result":{}}'),
            lambda reply: reply.raw(500, b"it broke", "text/plain"),
            lambda reply: reply.raw(500, b'{"jsonrpc":"2.0","error":{"code":-7,"message":"seven"}}'),
            lambda reply: reply.raw(429, b"{}", "text/html"),
        )
        texts = []
        async with FakeHttp(faults) as fake, Client(fake.url, timeout_s=5) as client:
            for _ in range(8):
                with pytest.raises(MCPError) as failed:
                    await client.call_tool("t")
                texts.append(str(failed.value).replace(fake.url, "URL"))
            assert (await client.call_tool("t")).text == "ok"
        assert texts == [
            "URL answered tools/call with HTTP 202 and nothing",
            "URL answered tools/call with HTTP 200 and text/html, which is no answer",
            "URL answered tools/call with HTTP 200 and application/json, which is no answer",
            "URL answered tools/call with HTTP 200 and application/json, which is no answer",
            "URL answered tools/call with HTTP 200 and application/json, which is no answer",
            "URL answered tools/call with HTTP 500 X: it broke",
            "seven (-7)",
            "URL answered tools/call with HTTP 429 X",
        ]

    run(test())


def test_answers_in_a_batch_and_in_pieces() -> None:
    async def byte_by_byte(reply: Reply) -> None:
        told = json.dumps(
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}
        )
        stream = b": \r\n\r\nevent: ping\ndata: x\n\n" + event(told.encode()) + event(reply.text("pieces"))
        for i in range(len(stream)):
            reply.stream(stream[i : i + 1])
            await asyncio.sleep(0)
        reply.end()

    async def test() -> None:
        logs: list[Any] = []
        script = legacy(lambda reply: reply.raw(200, b"[" + reply.text("batch") + b"]"), byte_by_byte)
        async with FakeHttp(script) as fake:
            async with Client(fake.url, mode="legacy", timeout_s=5, logging_callback=logs.append) as client:
                assert (await client.call_tool("t")).text == "batch"
                assert (await client.call_tool("t")).text == "pieces"
                assert len(logs) == 1

    run(test())


@pytest.mark.parametrize("streamed", [False, True], ids=["JSON", "events"])
def test_an_answer_beyond_the_limit(streamed: bool) -> None:
    def big(reply: Reply) -> None:
        body = reply.text("x" * 100_000)
        if streamed:
            reply.stream(event(body))
            reply.end()
        else:
            reply.raw(200, body)

    async def test() -> None:
        async with FakeHttp(answering(big)) as fake:
            async with Client(fake.url, timeout_s=5, limits=Limits(frame_bytes_max=50_000)) as client:
                with pytest.raises(MCPError, match=r"longer than limits\.frame_bytes_max \(50000 bytes\)"):
                    await client.call_tool("t")
                assert (await client.call_tool("t")).text == "ok"

    run(test())


def test_deadlines() -> None:
    async def silent(reply: Reply) -> None:
        await asyncio.sleep(10)

    async def slow(reply: Reply) -> None:
        await asyncio.sleep(0.5)
        reply.raw(200, reply.text("slow"))

    async def test() -> None:
        async with FakeHttp(answering(silent, slow)) as fake:
            async with Client(HttpServer(fake.url, first_byte_s=0.2)) as client:
                with pytest.raises(RequestTimeout, match=r"did not begin to answer within 0\.2 s"):
                    await client.call_tool("t")
                assert (await client.call_tool("t", timeout_s=5)).text == "slow"  # a deadline of its own
            # Nobody there speaks TLS: connecting never ends.
            client = Client(HttpServer(fake.url.replace("http:", "https:"), connect_s=0.2))

            async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.read()
                writer.close()

            mute = await asyncio.start_server(nothing, "127.0.0.1", 0)
            port = mute.sockets[0].getsockname()[1]
            async with mute:
                client = Client(HttpServer(f"https://127.0.0.1:{port}/", connect_s=0.2))
                with pytest.raises(AddressError, match=r"no connection within 0\.2 s"):
                    await client.__aenter__()
                await asyncio.sleep(0.05)

    run(test())


def test_no_secret_stands_in_an_error() -> None:
    def echo(reply: Reply) -> None:
        told = {
            name: value for name, value in reply.request.headers.items() if name in ("x-key", "authorization")
        }
        reply.raw(500, json.dumps(told).encode(), WWW_Authenticate='Bearer x="s3cr3t-2"')

    async def fails() -> str:
        raise LookupError("no token today")

    async def test() -> None:
        async with FakeHttp(answering(echo, echo)) as fake:
            url = fake.url.replace("http://", "http://me:s3cr3t-4@") + "?key=s3cr3t-3"
            for client in (
                Client(fake.url, headers={"X-Key": "s3cr3t-1"}, authorization=lambda: "Bearer s3cr3t-2"),
                Client(url, timeout_s=5),
            ):
                async with client:
                    with pytest.raises(HttpError, match="HTTP 500") as failed:
                        await client.call_tool("t")
                error = failed.value
                assert "***" in str(error)
                for text in (str(error), repr(error), error.message):
                    assert "s3cr3t" not in text
                    assert "bWU6czNjcjN0LTQ=" not in text
            assert fake.seen[-1].headers["authorization"] == "Basic bWU6czNjcjN0LTQ="
            assert fake.seen[-1].target == "/mcp?key=s3cr3t-3"
            with pytest.raises(LookupError, match="no token today"):
                await Client(fake.url, authorization=fails).__aenter__()

    run(test())


def test_a_challenge() -> None:
    async def script(request: Request, reply: Reply) -> None:
        reply.raw(
            401, b'{"error":"invalid_token"}', WWW_Authenticate='Bearer resource_metadata="https://x/y"'
        )

    async def test() -> None:
        async with FakeHttp(script) as fake:
            with pytest.raises(HttpError, match="HTTP 401") as refused:
                await Client(fake.url).__aenter__()
            assert refused.value.status == 401
            assert refused.value.challenge == 'Bearer resource_metadata="https://x/y"'
            assert len(fake.seen) == 1

    run(test())


def test_redirects() -> None:
    async def test() -> None:
        async with FakeHttp(modern) as other:

            async def script(request: Request, reply: Reply) -> None:
                if request.target == "/mcp":
                    reply.raw(307, Location="/mcp/")
                elif request.message["params"].get("name") == "away":
                    reply.raw(307, Location=other.url + "?key=k")
                else:
                    await modern(request, reply)

            async with (
                FakeHttp(script) as fake,
                Client(fake.url, authorization="Bearer t", timeout_s=5) as client,
            ):
                assert (await client.call_tool("t")).text == "ok"
                assert [request.target for request in fake.seen] == ["/mcp", "/mcp/", "/mcp/"]
                with pytest.raises(HttpError, match=rf"redirects to {other.url}; use that URL"):
                    await client.call_tool("away")
            assert other.seen == []

    run(test())


def test_a_stream_that_breaks() -> None:
    def broken(reply: Reply) -> None:
        reply.stream(event(b"", "e-1"))
        reply.cut()

    def early(reply: Reply) -> None:
        reply.stream(event(b'{"jsonrpc":"2.0","method":"notifications/x"}'))
        reply.end()

    async def test() -> None:
        async with FakeHttp(answering(broken, early)) as fake, Client(fake.url, timeout_s=5) as client:
            with pytest.raises(ConnectionClosed, match="broke"):  # no stream is taken up again in this era
                await client.call_tool("t")
            with pytest.raises(ConnectionClosed, match="ended its answer to tools/call too early"):
                await client.call_tool("t")
            assert (await client.call_tool("t")).text == "ok"
            assert "GET" not in fake.methods()

    run(test())


def test_certificates(tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path)

    async def test() -> None:
        async with FakeHttp(modern, tls=server) as fake:
            with pytest.raises(AddressError, match="its certificate is not trusted"):
                await Client(fake.url).__aenter__()
            async with Client(HttpServer(fake.url, ssl=trusting), timeout_s=5) as client:
                assert (await client.call_tool("t")).text == "ok"

    run(test())


def contexts(folder: Path) -> tuple[Any, Any]:
    import datetime as dt
    import ipaddress
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return server, ssl.create_default_context(cadata=pem.decode())
