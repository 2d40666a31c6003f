"""The structured side of a tool's result: what its return annotation promises, checked and written.

An annotation whose values are JSON objects is the schema itself, everything else is wrapped as `{"result": ...}`.
Content blocks and what becomes one carry no structured content, and neither does `Any`, `None` or no annotation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import msgspec

from mcpfast.errors import RegistrationError
from mcpfast.protocol import messages
from mcpfast.server.callables import MISSING, SCALARS
from mcpfast.server.encoding import encode

if TYPE_CHECKING:
    from mcpfast.server.schema import Writer

# Where the classes live whose values become content blocks, or are whole results.
_CONTENT_HOMES = frozenset({"mcpfast.protocol.blocks", "mcpfast.protocol.results", "mcpfast.server.content"})
# Annotations that promise nothing; a bare list or tuple may well hold content blocks.
_NOTHING = (MISSING, Any, None, type(None), list, tuple, set, frozenset)


class Output:
    """What one tool returns. `encode` is None where there is no structured content.

    `encode(value)` gives the JSON of structuredContent; `check(structured)` does so for what a handler has put
    together itself. Both raise TypeError for what does not conform to the annotation.
    """

    __slots__ = ("_kind", "check", "encode", "is_content", "wraps", "write")

    def __init__(self, *, is_content: bool = False) -> None:
        self.is_content = is_content
        self.wraps = False
        self.encode: Callable[[Any], bytes] | None = None
        self.check: Callable[[Any], bytes] | None = None
        self.write: Callable[[Writer], dict[str, Any]] | None = (
            None  # the schema of the value, before wrapping
        )

    @classmethod
    def of(cls, returns: Any, structured: bool | None, name: str) -> Output:
        """The output for a return annotation. Raises RegistrationError where `structured` is True and it cannot be."""
        if type(returns) is type and returns in SCALARS and structured is not False:
            return cls()._scalar(returns, name)
        if structured is False or (structured is None and any(returns is nothing for nothing in _NOTHING)):
            return cls(is_content=is_content(returns))
        if structured and returns is MISSING:
            raise RegistrationError(f"{name}(): structured_output=True needs a return annotation")
        returns = _declared(returns)
        if structured is None and is_content(returns):
            return cls(is_content=True)
        from mcpfast.server.schema_foreign import Unfit
        from mcpfast.server.schema_types import Fitter

        try:
            return cls()._fitted(returns, Fitter(returned=True), name)
        except Unfit as error:
            if structured:
                raise RegistrationError(
                    f"{name}(): structured_output=True, but of its result {error}"
                ) from None
            return cls()

    def _scalar(self, kind: Any, name: str) -> Output:
        accepted = (int, float) if kind is float else (kind,)

        def encode_scalar(value: Any) -> bytes:
            if type(value) in accepted and (kind is not float or value - value == 0):  # no NaN, no infinity
                return b'{"result":' + encode(value) + b"}"
            raise _nonconforming(name, f"Expected `{kind.__name__}`, got {_described(value)}")

        self.wraps = True
        self.encode = encode_scalar
        self.check = _checker(messages.make_decoder(_wrapper(kind)), name)
        self.write = lambda writer: writer.write(kind)
        return self

    def _fitted(self, returns: Any, fitter: Any, name: str) -> Output:
        from mcpfast.server.schema_foreign import Impossible, Unfit, decoder
        from mcpfast.server.schema_types import may_be_pydantic

        try:
            kind = fitter.fit(returns)
            reads = decoder(kind)
        except Unfit as error:
            if isinstance(error, Impossible) or not may_be_pydantic(returns):
                raise
            try:
                return self._by_pydantic(returns, name)
            except Unfit:
                pass
            raise  # what was said first is about the annotation
        if fitter.pydantic:
            try:
                return self._by_pydantic(returns, name)
            except (
                Unfit
            ):  # a Struct among models: msgspec writes and reads it all, models by their own methods
                pass
        self.wraps = not is_object(kind)
        check = _checker(reads, name)
        self.encode = _wrapping(check) if self.wraps else check
        if kind is dict or (get_origin(kind) is dict and get_args(kind) == (str, Any)):
            self.encode = _any_dict(name)
        self.check = _checker(decoder(_wrapper(kind)), name) if self.wraps else check
        self.write = lambda writer: writer.write(kind)
        return self

    def _by_pydantic(self, returns: Any, name: str) -> Output:
        from mcpfast.server.schema_pydantic import is_object as is_pydantic_object
        from mcpfast.server.schema_pydantic import one_line, schema_of, type_adapter

        adapter = type_adapter(returns)
        schema_of(adapter, "serialization")

        def encode_value(value: Any) -> bytes:
            try:
                valid = adapter.validate_python(value)
                if hasattr(valid, "model_dump_json"):  # an object of a subclass keeps its own members
                    return valid.model_dump_json(by_alias=True).encode()  # type: ignore[no-any-return]
                return adapter.dump_json(valid, by_alias=True)  # type: ignore[no-any-return]
            except ValueError as error:
                raise _nonconforming(name, one_line(error)) from None

        def check(structured: Any) -> bytes:
            raw = encode(structured)
            try:
                adapter.validate_json(_unwrapped(raw, name) if self.wraps else raw)
            except ValueError as error:
                raise _nonconforming(name, one_line(error)) from None
            return raw

        self.wraps = not (is_pydantic_object(returns) or _is_typed_dict(returns) or is_object(returns))
        self.encode = _wrapping(encode_value) if self.wraps else encode_value
        self.check = check
        self.write = lambda writer: writer.adopt(
            schema_of(adapter, writer.mode), getattr(returns, "__name__", "")
        )
        return self


def is_content(returns: Any) -> bool:
    """Whether values of this annotation become content blocks: blocks, Image, Audio, bytes, results, lists of these."""
    origin = get_origin(returns)
    if origin is None:
        if not isinstance(returns, type):
            return False
        return returns in (bytes, bytearray, memoryview) or any(
            base.__module__ in _CONTENT_HOMES for base in returns.__mro__
        )
    if origin is Annotated:
        return is_content(get_args(returns)[0])
    if isinstance(origin, type) and issubclass(origin, dict):
        return False
    return any(is_content(argument) for argument in get_args(returns))


def is_object(kind: Any) -> bool:
    """Whether values of a fitted annotation are JSON objects."""
    from mcpfast.server.schema_members import is_members_class

    if get_origin(kind) is Annotated:
        return is_object(get_args(kind)[0])
    origin = get_origin(kind) or kind
    if not isinstance(origin, type):
        return False
    if issubclass(origin, msgspec.Struct):
        return not origin.__struct_config__.array_like
    if origin.__name__ in ("dict", "Mapping", "MutableMapping") and not is_members_class(origin):
        keys = get_args(kind)[:1]
        return not keys or keys[0] is str
    if getattr(kind, "is_object", None) is not None:  # read by pydantic
        return bool(kind.is_object)
    if hasattr(origin, "model_validate"):
        return not getattr(origin, "__pydantic_root_model__", False)
    return is_members_class(origin) and not issubclass(origin, tuple)


def _is_typed_dict(kind: Any) -> bool:
    from mcpfast.server.schema_members import is_typed_dict

    return is_typed_dict(kind)


def _declared(returns: Any) -> Any:
    """The data among what a handler may return: without InputRequiredResult, and the T of Annotated[CallToolResult, T]."""
    origin = get_origin(returns)
    if origin is Annotated:
        base, *extras = get_args(returns)
        if getattr(base, "__name__", "") in ("CallToolResult", "ToolResult") and is_content(base) and extras:
            return extras[0]
        return returns
    arms = get_args(returns)
    if any(getattr(arm, "__name__", "") == "InputRequiredResult" for arm in arms):
        from mcpfast.server.schema_types import union_of

        rest = [arm for arm in arms if getattr(arm, "__name__", "") != "InputRequiredResult"]
        return union_of(rest) if rest else returns
    return returns


def _checker(decoder: msgspec.json.Decoder[Any], name: str) -> Callable[[Any], bytes]:
    """Writes a value and reads it back: what the client gets is what the schema says, whatever the objects hold."""
    decode = decoder.decode

    def check(value: Any) -> bytes:
        raw = encode(value)
        try:
            decode(raw)
        except msgspec.DecodeError as error:
            raise _nonconforming(name, str(error)) from None
        return raw

    return check


def _any_dict(name: str) -> Callable[[Any], bytes]:
    def encode_dict(value: Any) -> bytes:
        raw = encode(value)
        if raw[:1] != b"{":
            raise _nonconforming(name, f"Expected `object`, got {_described(value)}")
        return raw

    return encode_dict


def _wrapping(write: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def encode_wrapped(value: Any) -> bytes:
        return b'{"result":' + write(value) + b"}"

    return encode_wrapped


def _wrapper(kind: Any) -> Any:
    return msgspec.defstruct("Wrapped", [("result", kind)])


def _unwrapped(raw: bytes, name: str) -> Any:
    try:
        return bytes(msgspec.json.decode(raw, type=_wrapper(msgspec.Raw)).result)
    except msgspec.DecodeError as error:
        raise _nonconforming(name, str(error)) from None


def _nonconforming(name: str, how: str) -> TypeError:
    return TypeError(f"{name}(): the result does not conform to the return annotation: {how}")


def _described(value: Any) -> str:
    if isinstance(value, float):
        return f"`{value}`"  # NaN or an infinity, where a float was promised
    return f"`{type(value).__name__}`"
