"""What a load is made of: from the options of the command line, or from a scenario file (TOML)."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from mcpfast.bench.messages import LISTS, Speech
from mcpfast.bench.plan import Expectation, Step
from mcpfast.errors import McpFastError


class ScenarioError(McpFastError):
    """A scenario that cannot be made sense of; the text says where and what to write."""


class Action(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One `[[action]]`: exactly one of call, list, read, prompt, ping, open, close, pause_ms and reconnect."""

    call: str | None = None  # a tool
    list: str | None = None  # tools, resources, templates or prompts
    read: str | None = None  # a resource's URI
    prompt: str | None = None
    ping: bool = False
    open: bool = False  # script: initialize, and the notification behind it
    close: bool = False  # script: ends the session (DELETE)
    pause_ms: float | None = None  # script
    reconnect: bool = False  # script
    name: str | None = None  # what tables call it
    weight: int = 1  # how often, beside the others
    arguments: dict[str, Any] = {}  # "{user}" in a string is the number of a user
    payload_bytes: int = 0  # a tool with `text`: so many letters, expected back
    expect: str | None = None  # what the first content block says
    expect_json: dict[str, Any] = {}  # or the JSON in it: members by their path ("a.b")
    expect_items: dict[str, int] = {}  # and how many elements its arrays have
    cancel_after_ms: float = 0.0

    @property
    def title(self) -> str:
        if self.name is not None:
            return self.name
        for kind in ("call", "list", "read", "prompt"):
            if getattr(self, kind) is not None:
                return f"{kind} {getattr(self, kind)}"
        return (
            "pause" if self.pause_ms is not None else next((k for k in BARE if getattr(self, k)), "nothing")
        )


BARE = ("ping", "open", "close", "reconnect")
KINDS = ("call", "list", "read", "prompt", "pause_ms", *BARE)


class Scenario(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A scenario file. What the command line says too, it says with more weight."""

    name: str = ""
    action: list[Action]
    script: bool = (
        False  # each connection goes through the actions in their order; else they are mixed by weight
    )
    users: int = 1  # "{user}" in arguments goes from 0 to users - 1
    headers: dict[str, str] = {}
    bearer_env: str | None = None  # the environment variable that holds a bearer token
    connections: int | None = None
    window: int | None = None
    rate: float | None = None
    duration_s: float | None = None
    warmup_s: float | None = None
    ramp_s: float | None = None
    requests_per_connection: int = 0  # then it is closed and another one opened; 0: never


def read_scenario(file: Path) -> Scenario:
    """Raises ScenarioError, which names the file and the place in it."""
    try:
        scenario = msgspec.convert(tomllib.loads(file.read_text()), Scenario)
    except FileNotFoundError:
        raise ScenarioError(f"{file}: no such file") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError, OSError) as error:
        raise ScenarioError(f"{file}: {error}") from None
    try:
        check(scenario)
    except ScenarioError as error:
        raise ScenarioError(f"{file}: {error}") from None
    return scenario


def check(scenario: Scenario) -> None:
    if not scenario.action:
        raise ScenarioError("a scenario has at least one [[action]]")
    if scenario.users < 1:
        raise ScenarioError("users: at least 1")
    for number, action in enumerate(scenario.action, 1):
        where = f"action {number} ({action.title})"
        said = [kind for kind in KINDS if getattr(action, kind) not in (None, False)]
        if len(said) != 1:
            raise ScenarioError(f"{where}: exactly one of {', '.join(KINDS)} is wanted")
        if said[0] in ("open", "close", "pause_ms", "reconnect") and not scenario.script:
            raise ScenarioError(f"{where}: {said[0]} has a meaning with script = true only")
        if action.list is not None and action.list not in LISTS:
            raise ScenarioError(f"{where}: list is one of {', '.join(LISTS)}")
        if action.weight < 1:
            raise ScenarioError(f"{where}: weight is at least 1")


@dataclass(frozen=True, slots=True)
class Steps:
    """A scenario for one server: the steps of a plan, and their order."""

    steps: list[Step]
    prologue: list[int]
    body: list[int]
    stride: int


def steps_of(scenario: Scenario, speech: Speech, *, greeted: bool = False) -> Steps:
    """`greeted`: the one connection there is has shaken hands already.

    Raises ScenarioError where the server's era or transport does not know what the scenario asks.
    """
    made = _Maker(scenario, speech)
    prologue = [] if greeted else made.prologue()
    rounds = [
        [index for action in scenario.action for index in made.indices(action, user)]
        for user in range(scenario.users if made.uses_users else 1)
    ]
    if scenario.script:
        return Steps(made.steps, prologue, [index for one in rounds for index in one], len(rounds[0]))
    weights = [action.weight for action in scenario.action]
    body = [one[at] for one in rounds for at in in_turns(weights)]
    return Steps(made.steps, prologue, body, len(body))


def in_turns(weights: Sequence[int]) -> list[int]:
    """Indices, each as often as its weight says, spread evenly: no two runs differ, and none comes in bursts."""
    shared = math.gcd(*weights)
    total, credits, order = sum(weights) // shared, [0] * len(weights), []
    for _ in range(total):
        credits = [credit + weight // shared for credit, weight in zip(credits, weights, strict=True)]
        chosen = credits.index(max(credits))
        credits[chosen] -= total
        order.append(chosen)
    return order


class _Maker:
    def __init__(self, scenario: Scenario, speech: Speech) -> None:
        self.scenario = scenario
        self.speech = speech
        self.steps: list[Step] = []
        self.known: dict[Any, int] = {}
        self.uses_users = any("{user" in repr(action.arguments) for action in scenario.action)

    def put(self, key: Any, step: Step) -> int:
        if key not in self.known:
            self.known[key] = len(self.steps)
            self.steps.append(step)
        return self.known[key]

    def prologue(self) -> list[int]:
        speech = self.speech
        indices = [self.put("upgrade", speech.upgrade())] if speech.wire == "websocket" else []
        if (
            speech.revision.modern and speech.wire == "lines"
        ):  # else a command's start would be part of its first call
            return [self.put("discover", speech.discover())]
        if speech.revision.modern or (self.scenario.script and any(one.open for one in self.scenario.action)):
            return indices
        return [*indices, *self.opening(counted=False)]

    def opening(self, *, counted: bool) -> list[int]:
        return [
            self.put(("initialize", counted), replace(self.speech.initialize(), counted=counted)),
            self.put("initialized", self.speech.initialized()),
        ]

    def indices(self, action: Action, user: int) -> list[int]:
        speech = self.speech
        if action.open:
            return [] if speech.revision.modern else self.opening(counted=True)
        if action.close:
            over_http = speech.wire == "http" and not speech.revision.modern
            return [self.put("delete", speech.delete_session())] if over_http else []
        if action.pause_ms is not None:
            pause = Step("pause", "pause", counted=False, wait_s=action.pause_ms / 1e3)
            return [self.put(("pause", action.pause_ms), pause)]
        if action.reconnect:
            return [self.put("reconnect", Step("reconnect", "reconnect", counted=False))]
        return [self.put((id(action), user), self.request(action, user))]

    def request(self, action: Action, user: int) -> Step:
        method, params = self.asked(action, user)
        cancel_step = -1
        if action.cancel_after_ms > 0:
            cancel_step = self.cancel_step(action)
        return self.speech.request(
            action.title,
            method,
            params,
            expect=self.expectation(action, user),
            wait_s=action.cancel_after_ms / 1e3,
            cancel_step=cancel_step,
        )

    def cancel_step(self, action: Action) -> int:
        if self.speech.wire != "http":
            return self.put("cancelled", self.speech.cancelled())
        if not self.speech.revision.modern:
            raise ScenarioError(
                f"{action.title}: over HTTP, calls are cancelled by closing their stream, which is of 2026-07-28"
            )
        return -1

    def asked(self, action: Action, user: int) -> tuple[str, dict[str, Any]]:
        arguments = with_user(action.arguments, user)
        if action.call is not None:
            if action.payload_bytes:
                arguments = {**arguments, "text": letters(action.payload_bytes)}
            return "tools/call", {"name": action.call, "arguments": arguments}
        if action.list is not None:
            return LISTS[action.list], {}
        if action.read is not None:
            return "resources/read", {"uri": with_user(action.read, user)}
        if action.prompt is not None:
            return "prompts/get", {"name": action.prompt, "arguments": arguments}
        return ("server/discover" if self.speech.revision.modern else "ping"), {}

    def expectation(self, action: Action, user: int) -> Expectation:
        text = action.expect
        if text is None and action.payload_bytes:
            text = letters(action.payload_bytes)
        members = {
            path: msgspec.json.encode(with_user(value, user)).decode()
            for path, value in action.expect_json.items()
        }
        return Expectation(
            complete=self.speech.revision.modern,
            text=text,
            members=members,
            lengths=dict(action.expect_items),
        )


def letters(count: int) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return (alphabet * (count // len(alphabet) + 1))[:count]


def with_user(value: Any, user: int) -> Any:
    """`value` with "{user}" (or "{user:05d}") in its strings replaced."""
    if isinstance(value, str):
        return value.format(user=user) if "{user" in value else value
    if isinstance(value, dict):
        return {name: with_user(member, user) for name, member in value.items()}
    return [with_user(item, user) for item in value] if isinstance(value, list) else value
