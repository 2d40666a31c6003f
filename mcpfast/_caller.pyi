"""Stubs of who a request is of."""

from typing import Any

from mcpfast._quota import Admission

class Pass:
    admission: Admission
    cost: float
    response_bytes_max: float
    call_s_max: float
    def __init__(self, admission: Admission, cost: float) -> None: ...

class Caller:
    tenant: Any
    principal: Any
    view: Any
    key: tuple[str, str, int]
    generation: int
    expires_s: float
    def __init__(
        self,
        tenant: Any,
        principal: Any,
        view: Any,
        key: tuple[str, str, int],
        generation: int,
        expires_s: float,
    ) -> None: ...
    def is_good(self, generation: int, now_s: float) -> bool: ...
    def is_same(self, other: Caller | None) -> bool: ...
    def allow(self, what: Any, granted: Pass) -> None: ...
    def granted(self, what: Any) -> Pass | None: ...
