"""Asking the client in the middle of a call, the same for a handler in both eras.

In the legacy era a question is a request of the server on the wire, and the handler waits where it stands. The modern era has
no server requests (2026-07-28, "MRTR"): the call ends with `input_required`, the client asks its user and calls again, and the
handler runs again from the top. What it asked and was told before stands in a sealed `requestState` that only the client
keeps, so the retry may reach any worker with the same keys:

    first call      elicit "q1" -> not answered: InputRequired                    state: {asked q1}
    retry           elicit "q1" -> the answer of this retry, checked; elicit "q2" -> InputRequired
                                                                                  state: {q1 answered, asked q2}
    retry           "q1" from the state, "q2" from this retry; the handler ends: a complete result

A replay must ask what it asked before: the digest of each question is kept, another one under the same key is an error of the
handler and told so. What must not happen twice goes through `once`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from mcpfast.errors import INVALID_PARAMS, MCPError, McpFastError, ToolError
from mcpfast.protocol import messages, modern

if TYPE_CHECKING:
    from mcpfast._spine import Request
    from mcpfast.server.dispatch import Dispatcher

T = TypeVar("T")
PURPOSE = "requestState"


class InputRequired(BaseException):
    """Ends a modern call whose questions the client must answer first.

    No Exception on purpose: `except Exception` in a handler must not take it for a failure.
    """

    mcp_outcome = "input_required"  # what observers are told: no error

    def __init__(self, asker: Asker, questions: list[Question[Any]]) -> None:
        super().__init__("the client must answer first")
        self.asker = asker
        self.questions = questions


def joined(error: BaseExceptionGroup[Any]) -> InputRequired | None:
    """The questions of a task group's children as those of one round; None where anything else went wrong in it."""
    found: list[InputRequired] = []
    for one in error.exceptions:
        inner = joined(one) if isinstance(one, BaseExceptionGroup) else one
        if not isinstance(inner, InputRequired):
            return None
        found.append(inner)
    return InputRequired(found[0].asker, [question for one in found for question in one.questions])


class ReplayMismatch(McpFastError):
    """A handler that ran again asked something else under the same key than it did before."""


class BadAnswer(McpFastError):
    """The client's answer does not fit the question."""


class Question(Generic[T]):
    """Something asked of the client: await it for the answer, or give several to `ctx.gather` for one round."""

    __slots__ = ("asker", "capability", "key", "method", "params", "parse")

    def __init__(
        self,
        asker: Asker,
        method: str,
        params: dict[str, Any],
        parse: Callable[[dict[str, Any]], T],
        capability: tuple[str, ...],
        key: str | None,
    ) -> None:
        self.asker = asker
        self.method = method
        self.params = params
        self.parse = parse  # raises BadAnswer
        self.capability = capability
        self.key = key

    def __await__(self) -> Generator[Any, Any, T]:
        return self._ask().__await__()

    async def _ask(self) -> T:
        answers = await self.asker.ask([self])
        return answers[0]  # type: ignore[no-any-return]

    def digest(self) -> str:
        """What was asked, in short: the same question gives the same digest on every worker."""
        asked = msgspec.json.encode([self.method, self.params], order="deterministic")
        return blake2b(asked, digest_size=12).hexdigest()


class State(msgspec.Struct):
    """What travels in a sealed requestState. Short names: it goes back and forth with every round."""

    flow: str
    answers: dict[str, Any] = {}
    asked: dict[str, str] = {}
    once: dict[str, msgspec.Raw] = {}


class Asker:
    """The questions of one call."""

    __slots__ = ("_client", "_count", "_dispatcher", "_fresh", "_keys", "_request", "state")

    def __init__(self, dispatcher: Dispatcher, request: Request, client: Any) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._client = client
        self._count = 0
        self._keys: set[str] = set()
        self._fresh: dict[str, Any] = {}  # answers that came with this very retry
        self.state: State | None = None

    # ---------------------------------------------------------------- asking

    async def ask(self, questions: list[Question[Any]]) -> list[Any]:
        """The answers, in order. Modern: raises InputRequired for those that are still missing, all of them in one round."""
        for question in questions:
            self._count += 1
            question.key = question.key or f"q{self._count}"
            if question.key in self._keys:
                raise ReplayMismatch(
                    f"the key {question.key!r} is asked twice in one call; give each question its own"
                )
            self._keys.add(question.key)
            self._check_capability(question)
        if self._client.revision.modern:
            return self._replay(questions)
        return await self._ask_now(questions)

    def _check_capability(self, question: Question[Any]) -> None:
        """The client must have declared it; a legacy one is simply unable, a modern one is told what to declare (-32021)."""
        name, *modes = question.capability
        declared = self._client.capabilities.get(name)
        able = isinstance(declared, dict) and self._exists(question.capability)
        for mode in modes if able else ():
            # an empty elicitation capability means forms (section 5.1)
            able = able and (mode in declared or (name == "elicitation" and mode == "form" and not declared))
        if able:
            return
        if self._client.revision.modern:
            raise modern.missing_capability(*(question.capability if modes != ["form"] else (name,)))
        raise ToolError(f"This client cannot be asked: it does not support {'.'.join(question.capability)}")

    def _exists(self, capability: tuple[str, ...]) -> bool:
        """Whether the revision has such questions; clients declare what they know before they know the revision."""
        revision = self._client.revision
        if capability[-1] in ("url", "tools"):
            return bool(revision.icons)  # since 2025-11-25
        return bool(revision.structured) or capability[0] != "elicitation"  # forms since 2025-06-18

    async def _ask_now(self, questions: list[Question[Any]]) -> list[Any]:
        channel = self._request.channel
        session = channel.session
        if len(questions) == 1:
            given = [await session.ask(questions[0].method, questions[0].params, channel)]
        else:
            try:
                async with asyncio.TaskGroup() as group:
                    waiting = [group.create_task(session.ask(q.method, q.params, channel)) for q in questions]
            except* MCPError as refused:
                raise refused.exceptions[0] from None
            given = [task.result() for task in waiting]
        return [self._parse(question, answer) for question, answer in zip(questions, given, strict=True)]

    @staticmethod
    def _parse(question: Question[Any], answer: Any) -> Any:
        if not isinstance(answer, dict):
            raise BadAnswer("the client's answer is no object")
        return question.parse(answer)

    # ---------------------------------------------------------------- the modern era: state, replay

    def open(self, params: messages.Retry, name: str, arguments: bytes) -> None:
        """Takes up what a retry brings. Raises MCPError -32602 for a state that was tampered with, is foreign, or has expired."""
        if params.input_responses is not msgspec.UNSET:
            self._fresh = messages.decode(dict[str, dict[str, Any]], bytes(params.input_responses))
        if params.request_state is msgspec.UNSET:
            return
        token = messages.decode(str, bytes(params.request_state))
        self.state = self._dispatcher.unseal(token, self._binding(name, arguments), State)

    def _binding(self, name: str, arguments: bytes) -> bytes:
        from mcpfast.server.sealed import call_binding  # only a call that asks pays for it

        caller = self._request.caller
        principal = "anonymous" if caller is None else messages.encode(caller.key).decode()
        return call_binding(principal, self._request.method, name, arguments)

    def _replay(self, questions: list[Question[Any]]) -> list[Any]:
        state = self._flow()
        answers: list[Any] = []
        missing: list[Question[Any]] = []
        for question in questions:
            key = question.key or ""
            digest = question.digest()
            if state.asked.setdefault(key, digest) != digest:
                raise ReplayMismatch(
                    f"the handler asked something else under the key {key!r} than before; it is run again from the top for "
                    "each round, so what it asks must follow from its arguments and the answers alone"
                )
            given = state.answers.get(key, self._fresh.get(key))
            if given is None:
                missing.append(question)
                continue
            try:
                answers.append(self._parse(question, given))
            except BadAnswer:  # asked again, not failed (section 27, MR8)
                state.answers.pop(key, None)
                missing.append(question)
                continue
            state.answers[key] = given
        if missing:
            raise InputRequired(self, missing)
        return answers

    def _flow(self) -> State:
        if self.state is None:
            self.state = State(flow=self._dispatcher.random(16).hex())
        return self.state

    def input_required(self, questions: list[Question[Any]], name: str, arguments: bytes) -> bytes:
        """The result that ends this round."""
        state = self._dispatcher.seal(self._flow(), self._binding(name, arguments))
        requests = {q.key or "": {"method": q.method, "params": q.params} for q in questions}
        return self._dispatcher.answers.input_required(requests, state)

    # ---------------------------------------------------------------- what must not happen twice

    async def once(self, key: str, fn: Callable[[], Awaitable[T] | T], kind: Any) -> Any:
        """Runs `fn` the first time and gives its result from then on, in later rounds too. The result must be JSON."""
        state = self._flow()
        known = state.once.get(key)
        if known is None:
            records = self._dispatcher.once_records()
            ttl_s = self._dispatcher.server.limits.sealed_state_s
            known = state.once[key] = msgspec.Raw(await records.run_json(state.flow, key, fn, ttl_s))
        return messages.make_decoder(Any if kind is None else kind).decode(known)


def refuse_state() -> MCPError:
    """One sentence for every reason: who tampers learns nothing."""
    return MCPError(INVALID_PARAMS, "Invalid or expired requestState")
