"""No byte of one tenant reaches another: a model of everybody drives a real server over every transport, and would notice.

That it would is shown by bugs, planted one after the other in the code of the server: each is one thing forgotten, as it could
be forgotten by a change, and each must be found.

A longer run: make soak
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from mcpfast.server.asking import Asker
from mcpfast.server.events import MemoryEventStore
from mcpfast.server.listeners import Listeners
from mcpfast.server.tenants import ShownTo
from mcpfast.tenancy.service import Callers
from mcpfast.tenancy.views import View
from mcpfast.transports.web import sessions
from mcpfast.transports.web.endpoint import Endpoint
from mcpfast.transports.web.old import OldConnection
from tests.isolation.machine import Isolation

EXAMPLES = int(os.environ.get("MCPFAST_ISOLATION_EXAMPLES", "0"))
STEPS = 40
HONEST = settings(
    max_examples=EXAMPLES or 30,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
# The same runs each time, and no time spent on the shortest one: what is asked is only whether it is found.
PLANTED = settings(
    HONEST,
    max_examples=150,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)


def test_no_byte_of_one_tenant_reaches_another(caplog: pytest.LogCaptureFixture) -> None:
    run_state_machine_as_test(Isolation, settings=HONEST)
    assert broken(caplog) == []


def broken(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the server's log says of faults of its own."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# ---------------------------------------------------------------------------------------------------- the planted bugs

Plant = Callable[[pytest.MonkeyPatch], None]


def pages_of_everybody(patch: pytest.MonkeyPatch) -> None:
    """Pages of lists are kept by revision and place, and not by the view that they were made for."""
    make = ShownTo.__init__

    def for_all(self: Any, *caller: Any) -> None:
        make(self, *caller)
        self.key = None

    patch.setattr(ShownTo, "__init__", for_all)


def sessions_by_id_alone(patch: pytest.MonkeyPatch) -> None:
    """A session belongs to whoever knows its id."""
    patch.setattr(sessions, "of_caller", lambda session, exchange: session)


def sessions_outlive_their_tenant(patch: pytest.MonkeyPatch) -> None:
    """A session is compared by ids, so whoever comes under the id of a tenant that was removed has its sessions."""

    def of_caller(session: Any, exchange: Any) -> Any:
        return session if session is not None and session.caller.key == exchange.caller.key else None

    patch.setattr(sessions, "of_caller", of_caller)


def old_streams_outlive_their_tenant(patch: pytest.MonkeyPatch) -> None:
    """The same of the streams of 2024-11-05."""

    def is_of(self: Any, exchange: Any) -> bool:
        ours, theirs = self.channel.caller, exchange.caller
        return ours is not None and ours.key == theirs.key

    patch.setattr(OldConnection, "is_of", is_of)


def states_of_anybody(patch: pytest.MonkeyPatch) -> None:
    """A requestState is sealed for its call, and not for who called."""
    from mcpfast.server.sealed import call_binding

    def binding(self: Any, name: str, arguments: bytes) -> bytes:
        return call_binding("anonymous", self._request.method, name, arguments)

    patch.setattr(Asker, "_binding", binding)


def cursors_of_anybody(patch: pytest.MonkeyPatch) -> None:
    """A cursor is sealed for nobody in particular."""
    patch.setattr(ShownTo, "_binding", lambda self: b"")


def callers_by_connection(patch: pytest.MonkeyPatch) -> None:
    """Whose a request is, is asked once for a connection; behind a proxy it is many people's."""
    identify = Endpoint.identify

    def once(self: Any, exchange: Any, head: Any, go_on: Any, *more: Any) -> None:
        if exchange.caller is None:
            identify(self, exchange, head, go_on, *more)
        else:
            head.caller = exchange.caller
            go_on()

    patch.setattr(Endpoint, "identify", once)


def callers_by_principal(patch: pytest.MonkeyPatch) -> None:
    """What was found out about a principal is kept by its id, so a weak credential of somebody has the rights of a strong one."""
    find = Callers._caller

    def by_principal(self: Any, identity: Any) -> Any:
        for known, caller in self._known.items():
            if (known.tenant_id, known.principal.id) == (identity.tenant_id, identity.principal.id):
                return caller
        return find(self, identity)

    patch.setattr(Callers, "_caller", by_principal)


def callers_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A change of the registry does not reach what was found out before."""
    patch.setattr(Callers, "_registry_changed", lambda self, changes: None)


def replays_by_event_alone(patch: pytest.MonkeyPatch) -> None:
    """The rest of a stream is sent to whoever names an event of it."""
    replay = MemoryEventStore.replay

    async def of_any_session(self: Any, session: str, event_id: str) -> Any:
        for one in list(self._sessions):
            found = await replay(self, one, event_id)
            if found is not None:
                return found
        return None

    patch.setattr(MemoryEventStore, "replay", of_any_session)


def updates_for_everybody(patch: pytest.MonkeyPatch) -> None:
    """Who subscribed to a resource is told of its changes in every tenant."""
    hears = Listeners._hears
    patch.setattr(Listeners, "_hears", lambda self, session, tenant_id=None: hears(self, session))


def deny_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What a tenant's `deny` says is not looked at."""
    patch.setattr(View, "matches", lambda self, name: self._allow.match(name) is not None)


def budgets_of_all(patch: pytest.MonkeyPatch) -> None:
    """Tenants with the same terms share what counts for them."""
    meters = Callers._meters
    by_terms: dict[Any, Any] = {}

    def shared(self: Any, tenant: Any) -> Any:
        key = self, tenant.terms.tool_quotas["spend"]
        if key not in by_terms:
            by_terms[key] = meters(self, tenant)
        return by_terms[key]

    patch.setattr(Callers, "_meters", shared)


BUGS: list[Plant] = [
    pages_of_everybody,
    sessions_by_id_alone,
    sessions_outlive_their_tenant,
    old_streams_outlive_their_tenant,
    states_of_anybody,
    cursors_of_anybody,
    callers_by_connection,
    callers_by_principal,
    callers_for_ever,
    replays_by_event_alone,
    updates_for_everybody,
    deny_forgotten,
    budgets_of_all,
]


@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)
def test_it_would_be_noticed(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Isolation, settings=PLANTED)
    assert broken(caplog) == [], "it was noticed because it broke the server"
