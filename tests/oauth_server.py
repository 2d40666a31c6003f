"""An OAuth authorization server on loopback, whose every decision is Authlib's. No tests here.

Authorization code with PKCE (RFC 7636), dynamic registration (RFC 7591), metadata (RFC 8414), the issuer in the authorization
response (RFC 9207), JWT access tokens (RFC 9068), and the audience that a client asks for (RFC 8707), which Authlib leaves to us.
Whoever is `signed_in` agrees to whatever a client asks for.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, NamedTuple

from aiohttp import web
from authlib.oauth2 import OAuth2Error, rfc6749, rfc7591, rfc7636, rfc8414, rfc9068, rfc9207
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload, JsonPayload, JsonRequest, OAuth2Request
from joserfc.jwk import ECKey, KeySet, RSAKey

SCOPES = ("orders:read", "orders:write")
TOKEN_S = 600
KEYS = KeySet([RSAKey.generate_key(2048, {"kid": "rsa"}), ECKey.generate_key("P-256", {"kid": "ec"})])


class Person(NamedTuple):
    """Who signed in, the tenant that they act for, and the resource that the token is asked for."""

    id: str
    tenant: str
    resource: str = ""

    def get_user_id(self) -> str:
        return self.id


class InvalidTarget(OAuth2Error):
    """RFC 8707, section 2: not a resource that tokens are given for here."""

    error = "invalid_target"


class Registered(rfc6749.ClientMixin):
    """A client, as it registered itself: public, so the proof of its code (PKCE) is all it can show."""

    def __init__(self, client_id: str, metadata: dict[str, Any]) -> None:
        self.client_id, self.metadata = client_id, metadata

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        return " ".join(one for one in (scope or "").split() if one in SCOPES)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.metadata["redirect_uris"]

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "none"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


class Code(NamedTuple):
    client_id: str
    redirect_uri: str
    scope: str
    person: Person
    code_challenge: str
    code_challenge_method: str
    code: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


class CodeGrant(AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS: ClassVar = ["none"]

    def save_authorization_code(self, code: str, request: Any) -> None:
        asked = request.payload.data
        person = request.user._replace(resource=asked["resource"])
        challenge, method = asked["code_challenge"], asked["code_challenge_method"]
        self.server.codes[code] = Code(
            request.client.client_id,
            request.payload.redirect_uri,
            request.scope,
            person,
            challenge,
            method,
            code,
        )

    def query_authorization_code(self, code: str, client: Registered) -> Code | None:
        found: Code | None = self.server.codes.get(code)
        return found if found is not None and found.client_id == client.client_id else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        del self.server.codes[authorization_code.code]

    def authenticate_user(self, authorization_code: Code) -> Person:
        return authorization_code.person


class AskedResource:
    """The extension of RFC 8707: a code, and then its token, are for one resource that is known here, named both times."""

    def __call__(self, grant: CodeGrant) -> None:
        grant.register_hook("after_validate_authorization_request_payload", self._check_known)
        grant.register_hook("after_validate_token_request", self._check_same)

    def _check_known(self, grant: CodeGrant, redirect_uri: str) -> None:
        asked = grant.request.payload.data
        if asked.get("resource") not in grant.server.resources or "code_challenge" not in asked:
            raise InvalidTarget("This server gives tokens for known resources, to clients with PKCE")

    def _check_same(self, grant: CodeGrant, result: object) -> None:
        if grant.request.form.get("resource") != grant.request.authorization_code.person.resource:
            raise InvalidTarget("The code was given for another resource")


class Proof(rfc7636.CodeChallenge):
    SUPPORTED_CODE_CHALLENGE_METHOD: ClassVar = ["S256"]


class Tokens(rfc9068.JWTBearerTokenGenerator):
    def get_jwks(self) -> KeySet:
        return KEYS

    def get_audiences(self, client: Registered, user: Person, scope: str) -> str:
        return user.resource

    def get_extra_claims(
        self, client: Registered, grant_type: str, user: Person, scope: str
    ) -> dict[str, Any]:
        return {"tenant": user.tenant}


class Registration(rfc7591.ClientRegistrationEndpoint):
    def authenticate_token(self, request: Any) -> str:
        return "open to everybody"

    def get_server_metadata(self) -> dict[str, Any]:
        return dict(self.server.metadata)

    def generate_client_info(self, request: Any) -> dict[str, Any]:
        return {"client_id": self.generate_client_id(request), "client_id_issued_at": int(time.time())}

    def save_client(
        self, client_info: dict[str, Any], client_metadata: dict[str, Any], request: Any
    ) -> Registered:
        client = Registered(client_info["client_id"], client_metadata)
        self.server.clients[client.client_id] = client
        return client


class Issuer(rfc9207.IssuerParameter):
    def __init__(self, server: OAuthServer) -> None:
        self.issuer = server.issuer
        super().__call__(server)

    def get_issuer(self) -> str:
        return self.issuer


class Reply:
    """An answer of Authlib's; its extensions change `location`."""

    def __init__(self, status: int, body: Any, headers: list[tuple[str, str]]) -> None:
        self.status, self.body, self.headers = status, body, dict(headers)
        self.location = self.headers.pop("Location", None)

    def on_the_wire(self) -> web.Response:
        headers = self.headers if self.location is None else {**self.headers, "Location": self.location}
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return web.Response(status=self.status, text=text, headers=headers)


class Asked(OAuth2Request):
    """A request, as aiohttp read it."""

    def __init__(self, request: web.Request, form: dict[str, str]) -> None:
        super().__init__(request.method, str(request.url), headers=request.headers)
        self._args, self._form = dict(request.query), form
        self.payload = BasicOAuth2Payload({**self._args, **form})

    @property
    def args(self) -> dict[str, str]:
        return self._args

    @property
    def form(self) -> dict[str, str]:
        return self._form


class Document(JsonPayload):
    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    @property
    def data(self) -> dict[str, Any]:
        return self._data


class OAuthServer(rfc6749.AuthorizationServer):
    """`resources` are those that tokens may be asked for; `visited` the paths that were asked for, in order."""

    def __init__(self, origin: str, algorithm: str) -> None:
        super().__init__(scopes_supported=SCOPES)
        self.issuer = f"{origin}/as"  # a path of its own, which goes behind the well-known one
        self.resources: set[str] = set()
        self.signed_in = Person("alice", "acme")
        self.visited: list[str] = []
        self.clients: dict[str, Registered] = {}
        self.codes: dict[str, Code] = {}
        self.metadata = rfc8414.AuthorizationServerMetadata(
            issuer=self.issuer,
            authorization_endpoint=f"{self.issuer}/authorize",
            token_endpoint=f"{self.issuer}/token",
            registration_endpoint=f"{self.issuer}/register",
            jwks_uri=f"{self.issuer}/jwks",
            scopes_supported=list(SCOPES),
            response_types_supported=["code"],
            grant_types_supported=["authorization_code"],
            token_endpoint_auth_methods_supported=["none"],
            code_challenge_methods_supported=["S256"],
            authorization_response_iss_parameter_supported=True,
        )
        self.metadata.validate(metadata_classes=[rfc9207.AuthorizationServerMetadata])
        self.register_token_generator("default", Tokens(self.issuer, algorithm, expires_generator=TOKEN_S))
        self.register_grant(CodeGrant, [Proof(required=True), AskedResource()])
        self.register_endpoint(Registration)
        self.register_extension(Issuer)

    # ---------------------------------------------------------------- what Authlib asks its surroundings for

    def query_client(self, client_id: str) -> Registered | None:
        return self.clients.get(client_id)

    def save_token(self, token: Any, request: Any) -> None:
        pass  # a JWT is known by its signature

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        pass

    def create_oauth2_request(self, request: Any) -> OAuth2Request:
        return request if isinstance(request, OAuth2Request) else Asked(*request)

    def create_json_request(self, request: tuple[web.Request, dict[str, Any]]) -> JsonRequest:
        asked, document = request
        made = JsonRequest(asked.method, str(asked.url), asked.headers)
        made.payload = Document(document)
        return made

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Reply:
        return Reply(status, body, headers)

    # ---------------------------------------------------------------- over HTTP

    async def answer(self, request: web.Request) -> web.Response:
        self.visited.append(request.path)
        match request.method, request.path:
            case "GET", "/.well-known/oauth-authorization-server/as":
                return web.json_response(self.metadata)
            case "GET", "/as/jwks":
                return web.json_response(KEYS.as_dict(private=False))
            case "POST", "/as/register":
                reply = self.create_endpoint_response("client_registration", (request, await request.json()))
            case "GET", "/as/authorize":
                reply = self._authorize(Asked(request, {}))
            case "POST", "/as/token":
                form = {name: str(value) for name, value in (await request.post()).items()}
                reply = self.create_token_response((request, form))
            case _:
                return web.Response(status=404)
        made: web.Response = reply.on_the_wire()
        return made

    def _authorize(self, asked: Asked) -> Reply:
        try:
            grant = self.get_consent_grant(asked, self.signed_in)
        except OAuth2Error as error:
            refused: Reply = self.handle_error_response(asked, error)
            return refused
        agreed: Reply = self.create_authorization_response(asked, self.signed_in, grant)
        return agreed


@asynccontextmanager
async def authorization_server(algorithm: str = "RS256") -> AsyncIterator[OAuthServer]:
    """One on loopback, on the loop of whoever asks."""
    app = web.Application()
    runner = web.AppRunner(app)

    async def answer(request: web.Request) -> web.Response:
        return await server.answer(request)

    app.router.add_route("*", "/{path:.*}", answer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = OAuthServer(f"http://127.0.0.1:{runner.addresses[0][1]}", algorithm)
    try:
        yield server
    finally:
        await runner.cleanup()
