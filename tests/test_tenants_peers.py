"""Who is asking by how they are connected, and not by what they send: client certificates, users behind Unix sockets."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import os
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mcpfast import Client
from mcpfast.client.http import HttpServer
from mcpfast.errors import AddressError
from mcpfast.server.host import Host
from mcpfast.tenancy.identity import Claim, Principal
from mcpfast.tenancy.local import MutualTls, PeerUsers
from mcpfast.tenancy.resolvers import Evidence
from mcpfast.transports.addresses import parse
from mcpfast.transports.sockets import Listener
from tests.test_http import Browser, Tools, both_loops, modern, post, rpc, serving
from tests.test_tenants_doors import asked
from tests.test_websocket import HELLO, upgraded
from tests.web_tenants import Tenanted, call, change, session, text_of, who
from tests.wire import run

# ---------------------------------------------------------------- client certificates
KEY_USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
    "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


class Authority(NamedTuple):
    """Signs certificates into a folder."""

    folder: Path
    name: Any
    key: Any

    @classmethod
    def made(cls, folder: Path, name: str = "authority") -> Authority:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        folder.mkdir(exist_ok=True)
        made = cls(folder, x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), key)
        made._write("ca", made.name, key, x509.BasicConstraints(ca=True, path_length=0))
        return made

    def sign(self, name: str, organization: str = "") -> tuple[str, str]:
        """The files of a certificate and its key; for localhost, whoever it is of."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        parts = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]
        if organization:
            parts.insert(0, x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization))
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        key = ec.generate_private_key(ec.SECP256R1())
        return self._write(name, x509.Name(parts), key, x509.SubjectAlternativeName(names))

    def _write(self, file: str, subject: Any, key: Any, extension: Any) -> tuple[str, str]:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        now = dt.datetime.now(dt.UTC)
        is_ca = isinstance(extension, x509.BasicConstraints)
        signs = dict.fromkeys(KEY_USES, False) | {"key_cert_sign": is_ca, "digital_signature": True}
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(extension, critical=is_ca)
            .add_extension(x509.KeyUsage(**signs), critical=True)  # this and what follows 3.13 insists on
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        cert_file, key_file = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        cert_file.write_bytes(made.public_bytes(pem))
        key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        return str(cert_file), str(key_file)

    @property
    def file(self) -> str:
        return str(self.folder / "ca.pem")

    def client(self, files: tuple[str, str] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.file)
        if files is not None:
            context.load_cert_chain(*files)
        return context


async def connect_tls(port: int, context: ssl.SSLContext) -> Browser:
    opened = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    return Browser(*opened)


async def is_served(port: int, context: ssl.SSLContext) -> bool:
    """Whether TLS lets a client with this certificate, or none, in."""
    try:
        async with await connect_tls(port, context) as browser:
            await call(browser)
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
        return False
    return True


@both_loops
def test_a_client_certificate_says_who_it_is(loop: str, tmp_path: Path) -> None:
    authority, strangers = Authority.made(tmp_path / "ours"), Authority.made(tmp_path / "theirs")
    certfile, keyfile = authority.sign("localhost")
    names = {
        "CN=till,O=Acme": Claim(Principal("till"), "acme"),
        "CN=desk": Claim(Principal("desk", scopes=frozenset({"write"})), "globex"),
    }

    async def scenario() -> None:
        tenanted = Tenanted(resolvers=[MutualTls(names)])
        settings = {"ssl_certfile": certfile, "ssl_keyfile": keyfile, "ssl_ca_certs": authority.file}
        async with serving(tenanted.server(), "https://127.0.0.1:0", **settings) as (listener, port):
            till = await connect_tls(port, authority.client(authority.sign("till", "Acme")))
            desk = await connect_tls(port, authority.client(authority.sign("desk")))
            nobody = await connect_tls(port, authority.client())
            unknown = await connect_tls(port, authority.client(authority.sign("unknown")))
            async with till, desk, nobody, unknown:
                for _ in range(3):  # all send the same bytes: what is known of them is not the same
                    assert await who(till) == "acme/till"
                    assert await who(desk) == "globex/desk"
                    assert await who(nobody) == 401
                    assert await who(unknown) == 401
                assert await who(nobody, **tenanted.alice) == "acme/alice"
                assert await who(unknown, **tenanted.alice) == 401
                assert await who(till, **tenanted.alice) == 401  # two credentials of two persons
                assert await who(till, Authorization="Bearer mcpf_bad") == 401
                assert await who(till) == "acme/till"
                assert (await call(till, "write")).status == 403
                assert (await call(desk, "write")).status == 200
                tills = await session(till)
                assert (await till.ask(rpc("ping"), **tills)).status == 200
                assert (await desk.ask(rpc("ping"), **tills)).status == 404
                await change(listener.host, state="suspended")
                assert await who(till) == 403
                assert await who(desk) == "globex/desk"
                socket = await upgraded(desk)
                assert text_of(await socket.ask(asked())) == "globex/desk"
            assert not await is_served(port, authority.client(strangers.sign("till", "Acme")))
            url = f"https://localhost:{port}/mcp"
            client_of = authority.client(authority.sign("desk"))
            async with Client(HttpServer(url, ssl=client_of)) as client:
                assert (await client.call_tool("who", {})).data == "globex/desk"

    run(scenario(), loop)


def test_without_tenants_every_client_needs_a_certificate(tmp_path: Path) -> None:
    authority = Authority.made(tmp_path)
    certfile, keyfile = authority.sign("localhost")

    async def scenario() -> None:
        settings = {"ssl_certfile": certfile, "ssl_keyfile": keyfile, "ssl_ca_certs": authority.file}
        async with serving(Tools().server(), "https://127.0.0.1:0", **settings) as (_, port):
            async with await connect_tls(port, authority.client(authority.sign("any"))) as browser:
                assert (await browser.call("echo", {"text": "x"})).status == 200
            assert not await is_served(port, authority.client())
        settings["ssl_ca_certs"] = keyfile
        with pytest.raises(AddressError, match="cannot use ssl_ca_certs"):
            async with serving(Tools().server(), "https://127.0.0.1:0", **settings):
                pass

    run(scenario())


# ---------------------------------------------------------------- Unix sockets


def ours() -> PeerUsers:
    return PeerUsers({os.getuid(): Claim(Principal("ops"), "acme")})


@both_loops
def test_the_user_behind_a_unix_socket_says_who_it_is(loop: str, tmp_path: Path) -> None:
    where = f"{tmp_path}/http.sock"

    async def scenario() -> None:
        tenanted = Tenanted(resolvers=[ours()])
        async with serving(tenanted.server(), f"unix+http://{where}") as (listener, _):
            async with Browser(*await asyncio.open_unix_connection(where)) as browser:
                for _ in range(3):
                    assert await who(browser) == "acme/ops"
                assert await who(browser, **tenanted.alice) == 401
                assert await who(browser, Authorization="Bearer mcpf_bad") == 401
                await change(listener.host, state="suspended")
                assert await who(browser) == 403
                await change(listener.host, state="active")
                socket = await upgraded(browser)
                assert text_of(await socket.ask(asked())) == "acme/ops"

    run(scenario(), loop)


class Slow:
    """A resolver that takes its time to say who alice is, once `gate` stands there."""

    def __init__(self) -> None:
        self.gate: asyncio.Event | None = None
        self.asked = asyncio.Event()

    async def resolve(self, evidence: Evidence) -> Claim | None:
        tenant, _, name = (evidence.header("x-who") or "").partition("/")
        if name == "alice" and self.gate is not None:
            self.asked.set()
            await self.gate.wait()
        return Claim(Principal(name, issuer="slow"), tenant)


@both_loops
def test_a_connection_of_several_is_never_of_who_listened_on_it_before(loop: str, tmp_path: Path) -> None:
    """As a proxy has them: a stream has ended, and its caller is still being asked about when the next one sends something."""
    where = f"{tmp_path}/http.sock"

    async def scenario() -> None:
        slow = Slow()
        tenanted = Tenanted(resolvers=[slow])
        async with serving(tenanted.server(), f"unix+http://{where}") as (listener, _):
            async with Browser(*await asyncio.open_unix_connection(where)) as proxy:
                asked, named = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
                proxy.write(post(asked, X_Who="acme/alice", **named))
                await proxy.head()
                assert b"acknowledged" in await proxy.chunk()
                slow.gate = asyncio.Event()
                await change(listener.host, "globex", name="other")
                await slow.asked.wait()
                (exchange,) = listener.endpoint.exchanges
                exchange.own.end_listens()
                while await proxy.chunk():
                    pass
                for _ in range(3):
                    assert await who(proxy, X_Who="globex/eve") == "globex/eve"
                slow.gate.set()
                await asyncio.sleep(0.05)
                for _ in range(3):
                    assert await who(proxy, X_Who="globex/eve") == "globex/eve"

    run(scenario(), loop)


def test_who_is_behind_no_known_user_needs_a_credential(tmp_path: Path) -> None:
    where = f"{tmp_path}/http.sock"

    async def scenario() -> None:
        others = PeerUsers({os.getuid() + 1: Claim(Principal("ops"), "acme")})
        tenanted = Tenanted(resolvers=[others])
        async with serving(tenanted.server(), f"unix+http://{where}"):
            async with Browser(*await asyncio.open_unix_connection(where)) as browser:
                assert await who(browser) == 401
                assert await who(browser, **tenanted.alice) == "acme/alice"

    run(scenario())


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_plain_sockets(kind: str, tmp_path: Path) -> None:
    """Lines, where nothing but the kernel says who it is: over TCP nobody does."""
    where = f"unix://{tmp_path}/lines.sock" if kind == "unix" else "tcp://127.0.0.1:0"

    async def scenario() -> None:
        async with Host(Tenanted(resolvers=[ours()]).server()) as host:
            listener = Listener(host, parse(where))
            try:
                address = listener.address
                reader, writer = (
                    await asyncio.open_unix_connection(address.socket)
                    if kind == "unix"
                    else await asyncio.open_connection("127.0.0.1", address.port)
                )
                writer.write(json.dumps(asked()).encode() + b"\n")
                answer = json.loads(await reader.readline())
                if kind == "unix":
                    assert text_of(answer) == "acme/ops"
                else:
                    assert answer["error"]["code"] == 4010
                writer.close()
            finally:
                listener.close()

    run(scenario())


@both_loops
def test_a_websocket_over_a_unix_socket_without_tenants(loop: str, tmp_path: Path) -> None:
    where = f"{tmp_path}/http.sock"

    async def scenario() -> None:
        async with serving(Tools().server(), f"unix+http://{where}"):
            for _ in range(2):
                async with Browser(*await asyncio.open_unix_connection(where)) as browser:
                    socket = await upgraded(browser)
                    assert text_of(await socket.ask(HELLO)) == "hi"

    run(scenario(), loop)
