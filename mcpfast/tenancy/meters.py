"""The meters of one tenant: its own, and those of its principals and tools, made when one of them is first called by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcpfast._quota import Admission, Meter
from mcpfast.tenancy.identity import Quota

if TYPE_CHECKING:
    from collections.abc import Mapping

UNLIMITED = Quota()


class Meters:
    """Who counts what a tenant uses. A principal or tool without limits of its own has no meter; an idle tenant has one."""

    __slots__ = (
        "_of_limited_tools",
        "_own",
        "_principal_quota",
        "_principals",
        "_tool_quotas",
        "_tools",
        "tenant",
        "terms",
    )

    def __init__(
        self,
        quota: Quota = UNLIMITED,
        principal_quota: Quota = UNLIMITED,
        tool_quotas: Mapping[str, Quota] | None = None,
    ) -> None:
        self.tenant = Meter(quota)
        self.terms: object = None  # whose limits these are, for whoever keeps them up to date
        self._principal_quota = principal_quota
        self._tool_quotas = tool_quotas
        self._own: Admission | None = None  # of principals without limits
        self._principals: dict[str, Admission] | None = (
            None  # with their meters; a dict each is 250 bytes more
        )
        self._tools: dict[str, Meter] | None = None
        self._of_limited_tools: dict[tuple[str | None, str], Admission] | None = None

    def admission(self, principal: str, tool: str) -> Admission:
        """The levels that a call of `tool` by `principal` passes; the same object each time."""
        if self._tool_quota(tool) == UNLIMITED:
            return self._admission_of(principal)
        key = (None if self._principal_quota == UNLIMITED else principal, tool)
        if self._of_limited_tools is None:
            self._of_limited_tools = {}
        found = self._of_limited_tools.get(key)
        if found is None:
            found = Admission(self.tenant, self.of_principal(principal), self.of_tool(tool))
            self._of_limited_tools[key] = found
        return found

    def _admission_of(self, principal: str) -> Admission:
        """That of a tool without limits."""
        if self._principal_quota == UNLIMITED:
            if self._own is None:
                self._own = Admission(self.tenant)
            return self._own
        if self._principals is None:
            self._principals = {}
        found = self._principals.get(principal)
        if found is None:
            found = self._principals[principal] = Admission(self.tenant, Meter(self._principal_quota))
        return found

    def _principal_meters(self) -> dict[str, Meter]:
        known = (self._principals or {}).items()
        return {name: of.principal for name, of in known if of.principal is not None}

    def of_principal(self, principal: str) -> Meter | None:
        """The meter of one principal; None where principals have no limits."""
        return self._admission_of(principal).principal

    def of_tool(self, tool: str) -> Meter | None:
        """The meter of one tool; None where it has no limits."""
        quota = self._tool_quota(tool)
        if quota == UNLIMITED:
            return None
        if self._tools is None:
            self._tools = {}
        if tool not in self._tools:
            self._tools[tool] = Meter(quota)
        return self._tools[tool]

    def _tool_quota(self, tool: str) -> Quota:
        return self._tool_quotas.get(tool, UNLIMITED) if self._tool_quotas else UNLIMITED

    def change(
        self, quota: Quota, principal_quota: Quota, tool_quotas: Mapping[str, Quota] | None = None
    ) -> None:
        """From now on these hold. What was used stays used; what has no limits any more is forgotten."""
        self.tenant.change(quota)
        self._principal_quota, self._tool_quotas = principal_quota, tool_quotas
        self._of_limited_tools = None  # calls in flight hold theirs
        for meter in self._principal_meters().values():
            meter.change(principal_quota)
        if principal_quota == UNLIMITED:
            self._principals = None
        for tool, meter in (self._tools or {}).items():
            meter.change(self._tool_quota(tool))

    def sweep(self, now_s: float, epoch_s: float) -> int:
        """Forgets principals whose meters say nothing that new ones would not; how many. To be called now and then."""
        resting = [
            principal
            for principal, meter in self._principal_meters().items()
            if meter.at_rest(now_s, epoch_s)
        ]
        if resting and self._principals is not None:
            for principal in resting:
                del self._principals[principal]
            self._of_limited_tools = None
        return len(resting)
