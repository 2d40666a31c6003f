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
        "_admissions",
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
        self._principals: dict[str, Meter] | None = None
        self._tools: dict[str, Meter] | None = None
        self._admissions: dict[tuple[str | None, str | None], Admission] | None = None

    def admission(self, principal: str, tool: str) -> Admission:
        """The levels that a call of `tool` by `principal` passes; the same object each time."""
        key = (
            principal if self._principal_quota != UNLIMITED else None,
            tool if self._tool_quota(tool) != UNLIMITED else None,
        )
        if self._admissions is None:
            self._admissions = {}
        found = self._admissions.get(key)
        if found is None:
            found = Admission(self.tenant, self.of_principal(principal), self.of_tool(tool))
            self._admissions[key] = found
        return found

    def of_principal(self, principal: str) -> Meter | None:
        """The meter of one principal; None where principals have no limits."""
        if self._principal_quota == UNLIMITED:
            return None
        if self._principals is None:
            self._principals = {}
        if principal not in self._principals:
            self._principals[principal] = Meter(self._principal_quota)
        return self._principals[principal]

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
        self._admissions = None  # calls in flight hold theirs
        if principal_quota == UNLIMITED:
            self._principals = None
        for meter in (self._principals or {}).values():
            meter.change(principal_quota)
        for tool, meter in (self._tools or {}).items():
            meter.change(self._tool_quota(tool))

    def sweep(self, now_s: float, epoch_s: float) -> int:
        """Forgets principals whose meters say nothing that new ones would not; how many. To be called now and then."""
        resting = [
            principal
            for principal, meter in (self._principals or {}).items()
            if meter.at_rest(now_s, epoch_s)
        ]
        if resting and self._principals is not None:
            for principal in resting:
                del self._principals[principal]
            self._admissions = None
        return len(resting)
