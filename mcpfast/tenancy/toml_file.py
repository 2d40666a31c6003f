"""The TOML of a registry, read and edited. Plain functions from bytes to bytes, so that they can run in a process of their own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from mcpfast.tenancy.decoding import ConfigurationError, below, decode, line_of, mistake, nearest, read_toml
from mcpfast.tenancy.identity import Plan, TenantRecord
from mcpfast.tenancy.key_records import KeyRecord
from mcpfast.tenancy.stores import (
    Conflict,
    Content,
    Unknown,
    check,
    check_key,
    check_record,
    next_revision,
    no_key,
    no_tenant,
)
from mcpfast.tenancy.toml_edit import Place, Table, edited

T = TypeVar("T")
SECTIONS = ("plans", "tenants", "keys")
BESIDE = ("server", "limits", "http", "tenancy")  # of mcpfast.toml, where a registry may stand, too
SLICE_RECORDS = 100  # decoded without a pause
LOCK_S = 60.0


# ---------------------------------------------------------------------------------------------------- reading


def content_of(document: Mapping[str, Any]) -> Content:
    """What a parsed file says. Raises ConfigurationError with the path of what is wrong."""
    for name in document:
        if name not in SECTIONS and name not in BESIDE:
            raise mistake(below("", name), f"there is no such section; {nearest(name, SECTIONS + BESIDE)}")
    plans = decode(document.get("plans", {}), dict[str, Plan], "plans")
    content = Content(plans, _named(document, "tenants", TenantRecord), _named(document, "keys", KeyRecord))
    check(content)
    return content


def _named(document: Mapping[str, Any], section: str, kind: type[T]) -> dict[str, T]:
    """The records of a section, by the names of their tables, which are their ids."""
    records = {}
    for id, table in decode(document.get(section, {}), dict[str, dict[str, Any]], section).items():
        path = below(section, id)
        if "id" in table:
            raise mistake(f"{path}.id", "the id is the name of the table, it is not said again")
        records[id] = decode({"id": id, **table}, kind, path)
    return records


class Head(msgspec.Struct):
    """The first thing told of a file; its tenants follow in so many slices, and then its keys."""

    plans: dict[str, Plan]
    tenant_slices: int


def read(path: bytes) -> bytes:
    """The file as frames, each its length and MessagePack: a Head, then slices of the tenants and of the keys."""
    content = content_in(Path(os.fsdecode(path)))
    tenants = _slices(list(content.tenants.values()))
    keys = _slices(list(content.keys.values()))
    encode = msgspec.msgpack.Encoder().encode
    frames = map(encode, [Head(dict(content.plans), len(tenants)), *tenants, *keys])
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def _slices(records: list[T]) -> list[list[T]]:
    return [records[at : at + SLICE_RECORDS] for at in range(0, len(records), SLICE_RECORDS)]


def content_in(file: Path) -> Content:
    """What a file says. Raises ConfigurationError, which names the file."""
    text, document = read_toml(file)
    try:
        return content_of(document)
    except ConfigurationError as error:
        line = line_of(text, error.path)
        raise type(error)(f"{file}{f':{line}' if line else ''}: {error}") from None


# ---------------------------------------------------------------------------------------------------- editing


class PutTenant(msgspec.Struct, tag=True, frozen=True):
    record: TenantRecord
    new: bool


class RemoveTenant(msgspec.Struct, tag=True, frozen=True):
    id: str


class PutKey(msgspec.Struct, tag=True, frozen=True):
    key: KeyRecord


class RevokeKey(msgspec.Struct, tag=True, frozen=True):
    id: str


class Edit(msgspec.Struct, frozen=True):
    file: str
    change: PutTenant | RemoveTenant | PutKey | RevokeKey


class Tables(NamedTuple):
    """What an edit does to the file: tables by section and id, None where one goes; and what it answers."""

    tables: dict[Place, Table | None]
    answer: Any = None


def edit(wanted: bytes) -> bytes:
    """Makes one change (an Edit as MessagePack) to the file as it is now; gives what is stored, as MessagePack.

    Raises ConfigurationError, Conflict and Unknown, and then the file is as before.
    """
    asked = msgspec.msgpack.decode(wanted, type=Edit)
    file = Path(os.path.realpath(asked.file))
    try:
        with locked(file):
            text, document = read_toml(file) if file.exists() else ("", {})
            done = _changed(asked.change, content_of(document))
            replace_file(file, edited(text, document, done.tables))
    except (Conflict, Unknown):  # nothing is wrong with the file
        raise
    except ConfigurationError as error:
        raise type(error)(str(error) if str(error).startswith(str(file)) else f"{file}: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    return msgspec.msgpack.encode(done.answer)


def _changed(change: PutTenant | RemoveTenant | PutKey | RevokeKey, content: Content) -> Tables:
    match change:
        case PutTenant(record, new):
            check_record(record, content.plans)
            stored = next_revision(record, content.tenants.get(record.id), new)
            return Tables({("tenants", record.id): _table(stored)}, stored)
        case RemoveTenant(id):
            if id not in content.tenants:
                raise no_tenant(id, content.tenants)
            gone = [("keys", key.id) for key in content.keys.values() if key.tenant == id]
            return Tables(dict.fromkeys([("tenants", id), *gone]))
        case PutKey(key):
            check_key(key, content.tenants)
            if key.id in content.keys:
                raise Conflict(f"there is a key {key.id!r} already")
            return Tables({("keys", key.id): _table(key)}, key)
        case RevokeKey(id):
            if id not in content.keys:
                raise no_key(id)
            revoked = msgspec.structs.replace(content.keys[id], revoked=True)
            return Tables({("keys", id): _table(revoked)}, revoked)


def _table(record: TenantRecord | KeyRecord) -> Table:
    """What a record says that is no default, but for its id."""
    said = {}
    for field in msgspec.structs.fields(record)[1:]:
        value = getattr(record, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if value != default:
            said[field.encode_name] = msgspec.json.decode(msgspec.json.encode(value, order="deterministic"))
    return said


# ---------------------------------------------------------------------------------------------------- the file


@contextlib.contextmanager
def locked(file: Path, *, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Alone among those who write through us. The lock file stays: one that goes can be held twice."""
    lock = os.open(file.with_name(file.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        late_s = clock() + LOCK_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() > late_s:
                    raise ConfigurationError(f"somebody else has written for {LOCK_S:g} seconds") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(lock)


def replace_file(file: Path, text: str) -> None:
    """Puts a file in the place of another in one step: readers see all of the one or all of the other, after a crash, too."""
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as out:
            os.fchmod(descriptor, mode)
            out.write(text)
            out.flush()
            os.fsync(descriptor)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
