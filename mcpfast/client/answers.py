"""What the server asks of the client, answered by the user's callbacks: elicitation, sampling, roots.

One table for both eras. Before 2026-07-28 each question is a request of the server (`Answers.answer`); from
then on a call ends with `input_required`, and is sent again with the answers (`drive`, section 27).

What callbacks may return, besides the SDK's result types and `ErrorData`, and besides raising MCPError:

    elicitation_callback(context, params)   a dict or struct: accepted, with this content
                                            a scalar: accepted, if the form has the one field "value"
                                            True: accepted; None or False: declined
    sampling_callback(context, params)      a str: the assistant said this
    list_roots_callback(context)            a list of roots, or of paths or file:// URIs

Callbacks may be `async def` or `def`; a `def` must not block.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from mcpfast.errors import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, MCPError
from mcpfast.protocol import messages, types
from mcpfast.protocol.revisions import LATEST, Revision

if TYPE_CHECKING:
    from mcpfast.client import Client

STATE_ONLY_S = 0.05  # before a call is sent again of which the server asked nothing; doubles each time
STATE_ONLY_MAX_S = 1.0

ElicitationCallback = Callable[["ClientRequestContext", types.ElicitRequestParams], Awaitable[Any] | Any]
SamplingCallback = Callable[["ClientRequestContext", types.CreateMessageRequestParams], Awaitable[Any] | Any]
ListRootsCallback = Callable[["ClientRequestContext"], Awaitable[Any] | Any]


class ClientRequestContext:
    """Who asks: the client that the question came to, its id (before 2026-07-28) or key (from then on), and
    its `_meta`.
    """

    __slots__ = ("client", "meta", "request_id")

    def __init__(self, client: Client, request_id: int | str, meta: dict[str, Any] | None) -> None:
        self.client = client
        self.request_id = request_id
        self.meta = meta

    @property
    def session(self) -> Client:
        """The client, by the name that callbacks written for the official SDK use."""
        return self.client


class Question(Struct):
    """One question as it stands inside `input_required`."""

    method: str
    params: Raw | UnsetType = UNSET


class InputRequired(Struct, rename="camel"):
    """As much of any result as shows whether it is one, and what is asked."""

    result_type: str | None = None
    input_requests: dict[str, Question] | None = None
    request_state: str | None = None


class _Meta(Struct):
    meta: dict[str, Any] | None = msgspec.field(name="_meta", default=None)


def _read(method: str, raw: Raw, kind: Any) -> Any:
    try:
        if method == "elicitation/create":
            return types.elicit_params(msgspec.json.decode(raw))
        return messages.decoder(kind).decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MCPError(INVALID_PARAMS, f"Invalid params of {method}: {error}") from error


class Answers:
    """The callbacks of one client, and the capabilities that follow from them."""

    def __init__(
        self,
        client: Client,
        *,
        elicitation: ElicitationCallback | None,
        elicitation_modes: Iterable[str],
        sampling: SamplingCallback | None,
        sampling_capabilities: Any,
        roots: ListRootsCallback | Iterable[Any] | None,
        extensions: Mapping[str, Mapping[str, Any]] | None,
    ) -> None:
        self._client = client
        self.revision = LATEST  # until one is agreed on
        self._elicitation = elicitation
        self._modes = tuple(elicitation_modes)
        self._sampling = sampling
        self._sampling_capabilities = sampling_capabilities
        self._roots = roots if roots is None or callable(roots) else list(roots)
        self._extensions = {name: dict(settings) for name, settings in (extensions or {}).items()}
        if unknown := set(self._modes) - {"form", "url"}:
            raise ValueError(f"elicitation_modes: {sorted(unknown)} unknown; there are 'form' and 'url'")

    def capabilities(self, revision: Revision) -> dict[str, Any]:
        """What the callbacks given can do, as a ClientCapabilities object of this revision (section 5.1)."""
        declared: dict[str, Any] = {}
        if self._elicitation is not None:
            # Before 2025-11-25 there are only forms, and nothing to say about them.
            declared["elicitation"] = {mode: {} for mode in self._modes} if revision.icons else {}
        if self._sampling is not None:
            given = self._sampling_capabilities
            declared["sampling"] = {} if given is None else msgspec.to_builtins(given)
        if self._roots is not None:
            declared["roots"] = {} if revision.modern else {"listChanged": True}
        if self._extensions:
            declared["extensions"] = self._extensions
        return declared

    async def answer(self, method: str, params: Raw | UnsetType | None, request_id: int | str) -> Any:
        """The result for one question, ready to be encoded.

        Raises MCPError when there is no callback for it (-32601), its params or mode are not as declared
        (-32602), or the callback refuses. What the callback raises otherwise comes through as it is.
        """
        raw = params if isinstance(params, Raw) else Raw(b"{}")
        if method == "elicitation/create" and self._elicitation is not None:
            asked = _read(method, raw, None)
            if asked.mode not in self._modes or (asked.mode == "url" and not self.revision.icons):
                raise MCPError(
                    INVALID_PARAMS, f"Elicitation mode {asked.mode!r} is not offered by this client"
                )
            context = ClientRequestContext(self._client, request_id, asked.meta)
            return elicit_result(await _outcome(self._elicitation(context, asked)), asked)
        if method == "sampling/createMessage" and self._sampling is not None:
            request = _read(method, raw, types.CreateMessageRequestParams)
            context = ClientRequestContext(self._client, request_id, request.meta)
            return sampling_result(await _outcome(self._sampling(context, request)))
        if method == "roots/list" and self._roots is not None:
            context = ClientRequestContext(self._client, request_id, _read(method, raw, _Meta).meta)
            given = self._roots(context) if callable(self._roots) else self._roots
            return roots_result(await _outcome(given))
        raise MCPError(METHOD_NOT_FOUND, f"This client does not answer {method}")

    async def answer_all(self, questions: dict[str, Question]) -> dict[str, Any]:
        """All answers of one round, asked at the same time; the first refusal ends the others."""
        if len(questions) == 1:
            ((key, question),) = questions.items()
            return {key: await self.answer(question.method, question.params, key)}
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    key: group.create_task(self.answer(question.method, question.params, key))
                    for key, question in questions.items()
                }
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return {key: task.result() for key, task in tasks.items()}


def input_required(result: Raw) -> InputRequired | None:
    """The questions, if this result is one that asks; None for any other.

    Raises MCPError for one that asks in no known way.
    """
    try:
        asked: InputRequired = messages.decoder(InputRequired).decode(result)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MCPError(
            INTERNAL_ERROR, f"The server's input_required result cannot be read: {error}"
        ) from None
    if asked.result_type != "input_required":
        return None
    if not asked.input_requests and asked.request_state is None:
        raise MCPError(
            INTERNAL_ERROR, "The server's input_required result asks nothing and has no requestState"
        )
    return asked


async def drive(
    ask: Callable[[dict[str, Any]], Awaitable[Raw]],
    read: Callable[[Raw], Any],
    answers: Answers,
    rounds_max: int,
    seed: dict[str, Any],
) -> Any:
    """Sends a call until its result is final, and gives that as `read` reads it.

    `ask` sends once, with members added to the params.

    Raises MCPError when the server asks for more than `rounds_max` rounds, or a callback refuses.
    """
    pause_s = STATE_ONLY_S
    extra = seed
    for _ in range(rounds_max + 1):
        raw = await ask(extra)
        try:
            # Most results are final: so read first, and look for questions in what does not look like an
            # answer.
            result = read(raw)
            if result.result_type != "input_required":
                return result
            asked = input_required(raw)
        except MCPError:
            asked = input_required(raw)
            if asked is None:
                raise
        assert asked is not None
        extra = {} if asked.request_state is None else {"requestState": asked.request_state}
        if asked.input_requests:
            pause_s = STATE_ONLY_S
            extra["inputResponses"] = await answers.answer_all(asked.input_requests)
        else:  # the server sheds load, or polls: not at once again and again
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, STATE_ONLY_MAX_S)
    raise MCPError(
        INTERNAL_ERROR, f"The server still asks after {rounds_max} rounds (input_required_max_rounds)"
    )


async def _outcome(given: Any) -> Any:
    """What a callback answered, in the end. Raises MCPError for an error it returned."""
    outcome = await given if isinstance(given, Awaitable) else given
    if isinstance(outcome, MCPError):
        raise outcome
    if isinstance(getattr(outcome, "code", None), int) and isinstance(getattr(outcome, "message", None), str):
        raise MCPError(outcome.code, outcome.message, getattr(outcome, "data", None))
    return outcome


def elicit_result(outcome: Any, asked: types.ElicitRequestParams) -> dict[str, Any]:
    """An elicitation callback's outcome as an ElicitResult on the wire. Raises TypeError for what is none."""
    if outcome is None or outcome is False:
        return {"action": "decline"}
    action = getattr(outcome, "action", None)
    if isinstance(action, str):
        content = getattr(outcome, "content", None)
        if action == "accept" and content is not None:
            return {"action": action, "content": content}
        return {"action": action}
    single = isinstance(asked, types.ElicitRequestFormParams) and [
        *asked.requested_schema.get("properties", ())
    ] == ["value"]
    if outcome is True and not single:
        return {"action": "accept"}
    content = msgspec.to_builtins(outcome)
    if isinstance(content, dict):
        return {"action": "accept", "content": content}
    if single:
        return {"action": "accept", "content": {"value": content}}
    raise TypeError(
        f"The elicitation callback returned {outcome!r}; "
        "return a dict of the form's fields, None to decline, or an ElicitResult"
    )


def sampling_result(outcome: Any) -> Any:
    """A sampling callback's outcome as a CreateMessageResult on the wire."""
    if isinstance(outcome, str):
        return {
            "role": "assistant",
            "content": {"type": "text", "text": outcome},
            "model": "client",
            "stopReason": "endTurn",
        }
    if isinstance(outcome, dict | types.CreateMessageResult):
        return outcome
    raise TypeError(f"The sampling callback returned {outcome!r}; return a str or a CreateMessageResult")


def roots_result(outcome: Any) -> Any:
    """A roots callback's outcome as a ListRootsResult on the wire."""
    roots = getattr(outcome, "roots", outcome)
    if isinstance(roots, str | dict) or not isinstance(roots, Iterable):
        raise TypeError(f"The roots callback returned {outcome!r}; return a list of roots or paths")
    return {"roots": [_root(root) for root in roots]}


def _root(given: Any) -> Any:
    if isinstance(given, str | os.PathLike):
        text = os.fspath(given)
        if "://" not in text:
            from pathlib import Path

            text = Path(text).resolve().as_uri()
        return {"uri": text}
    uri = getattr(given, "uri", None)
    if uri is not None and not isinstance(uri, str):  # a URL object, pydantic's say
        name = getattr(given, "name", None)
        return {"uri": str(uri)} if name is None else {"uri": str(uri), "name": name}
    return given
