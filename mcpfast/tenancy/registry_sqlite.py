"""A registry in SQLite, for many tenants and several processes of one machine. Write-ahead log: readers never wait for a writer.

Every change raises `version` in the same transaction; that is how a serving process sees that there is something new.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from mcpfast.tenancy.decoding import ConfigurationError
from mcpfast.tenancy.identity import Plan, TenantRecord
from mcpfast.tenancy.key_records import KeyRecord
from mcpfast.tenancy.stores import (
    Conflict,
    Content,
    check_key,
    check_plan,
    check_record,
    next_revision,
    no_key,
    no_tenant,
)

T = TypeVar("T")
WAIT_S = 30.0  # for another writer
SLICE_RECORDS = 100  # decoded without a pause
LAYOUT = 1  # of the tables, in PRAGMA user_version
TABLES = """
CREATE TABLE meta (version INTEGER NOT NULL);
INSERT INTO meta VALUES (1);
CREATE TABLE plans (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE tenants (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE keys (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE, record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX keys_of_tenant ON keys (tenant);
"""
Rows = list[tuple[str, bytes]]


class SqliteStore:
    """A `Store` in one database file, which is made when it is first asked for."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = os.fspath(file)
        self._connection: sqlite3.Connection | None = None
        self._one_at_a_time = threading.Lock()
        self._loaded = 0

    async def load(self) -> Content:
        version, plans, tenants, keys = await self._in_thread(self._read)
        self._loaded = version
        try:
            return Content(
                await _decoded(plans, Plan),
                await _decoded(tenants, TenantRecord),
                await _decoded(keys, KeyRecord),
                version,
            )
        except msgspec.DecodeError as error:
            raise self._damaged(error) from None

    async def changed(self) -> bool:
        return self._loaded != await self._in_thread(_version)

    async def put(self, record: TenantRecord, *, new: bool = False) -> TenantRecord:
        def write(database: sqlite3.Connection) -> TenantRecord:
            check_record(record, {name: _decode(plan, Plan) for name, plan in _rows(database, "plans")})
            stored = next_revision(record, _found(database, "tenants", record.id, TenantRecord), new)
            database.execute(
                "INSERT INTO tenants VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                (record.id, msgspec.json.encode(stored)),
            )
            return stored

        return await self._in_thread(write, writes=True)

    async def remove(self, id: str) -> None:
        def write(database: sqlite3.Connection) -> None:
            if not database.execute("DELETE FROM tenants WHERE id = ?", (id,)).rowcount:
                raise no_tenant(id, _ids(database))

        await self._in_thread(write, writes=True)

    async def put_plan(self, name: str, plan: Plan) -> None:
        """Adds or replaces a plan. Raises ConfigurationError for one that cannot be used."""
        check_plan(plan, f"plans.{name}")

        def write(database: sqlite3.Connection) -> None:
            database.execute(
                "INSERT INTO plans VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET record = excluded.record",
                (name, msgspec.json.encode(plan)),
            )

        await self._in_thread(write, writes=True)

    async def find_key(self, id: str) -> KeyRecord | None:
        return await self._in_thread(lambda database: _found(database, "keys", id, KeyRecord))

    async def put_key(self, key: KeyRecord) -> None:
        def write(database: sqlite3.Connection) -> None:
            if _found(database, "tenants", key.tenant, TenantRecord) is None:
                check_key(key, _ids(database))
            check_key(key, (key.tenant,))
            if _found(database, "keys", key.id, KeyRecord) is not None:
                raise Conflict(f"there is a key {key.id!r} already")
            database.execute(
                "INSERT INTO keys VALUES (?, ?, ?)", (key.id, key.tenant, msgspec.json.encode(key))
            )

        await self._in_thread(write, writes=True)

    async def revoke_key(self, id: str) -> KeyRecord:
        def write(database: sqlite3.Connection) -> KeyRecord:
            key = _found(database, "keys", id, KeyRecord)
            if key is None:
                raise no_key(id)
            revoked = msgspec.structs.replace(key, revoked=True)
            database.execute("UPDATE keys SET record = ? WHERE id = ?", (msgspec.json.encode(revoked), id))
            return revoked

        return await self._in_thread(write, writes=True)

    def close(self) -> None:
        with self._one_at_a_time:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # ---- in a thread -------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = False) -> T:
        return await asyncio.to_thread(self._work, work, writes)

    def _work(self, work: Callable[[sqlite3.Connection], T], writes: bool) -> T:
        try:
            with self._one_at_a_time:
                if self._connection is None:
                    self._connection = _connect(self.file)
                with _transaction(self._connection, writes):
                    return work(self._connection)
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(f"{self.file}: {error}") from None
        except msgspec.DecodeError as error:
            raise self._damaged(error) from None

    def _damaged(self, error: msgspec.DecodeError) -> ConfigurationError:
        return ConfigurationError(f"{self.file}: somebody else wrote a record into it that is none: {error}")

    def _read(self, database: sqlite3.Connection) -> tuple[int, Rows, Rows, Rows]:
        return (
            _version(database),
            _rows(database, "plans"),
            _rows(database, "tenants"),
            _rows(database, "keys"),
        )


def _connect(file: str) -> sqlite3.Connection:
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would make it readable for all
    database = sqlite3.connect(file, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA foreign_keys = ON")
        with _transaction(database, writes=False):
            layout = _layout(database)
        if layout == 0:
            with contextlib.closing(database.cursor()) as cursor:
                _make_tables(cursor)
        elif layout != LAYOUT:
            raise ConfigurationError(
                f"{file}: made by another version of mcpfast (layout {layout}, not {LAYOUT})"
            )
    except BaseException:
        database.close()
        raise
    return database


def _layout(database: sqlite3.Connection | sqlite3.Cursor) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _make_tables(cursor: sqlite3.Cursor) -> None:
    """Two processes may come here at once: the second one finds the work done."""
    cursor.execute("BEGIN IMMEDIATE")
    if _layout(cursor) == 0:
        for statement in TABLES.split(";"):
            cursor.execute(statement)
        cursor.execute(f"PRAGMA user_version = {LAYOUT}")
    cursor.execute("COMMIT")


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection, writes: bool) -> Iterator[None]:
    """One moment of the database; a change raises its version."""
    database.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        yield
        if writes:
            database.execute("UPDATE meta SET version = version + 1")
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT version FROM meta").fetchone()[0])


def _rows(database: sqlite3.Connection, table: str) -> Rows:
    column = "name" if table == "plans" else "id"
    return database.execute(f"SELECT {column}, record FROM {table}").fetchall()


def _ids(database: sqlite3.Connection) -> list[str]:
    return [id for id, _ in _rows(database, "tenants")]


def _found(database: sqlite3.Connection, table: str, id: str, kind: type[T]) -> T | None:
    row = database.execute(f"SELECT record FROM {table} WHERE id = ?", (id,)).fetchone()
    return None if row is None else _decode(row[0], kind)


def _decode(record: bytes, kind: type[T]) -> T:
    return msgspec.json.decode(record, type=kind)


async def _decoded(rows: Rows, kind: type[T]) -> dict[str, T]:
    """The records by their names, a slice at a time, so that the event loop goes on. Takes them out of `rows`."""
    decode = msgspec.json.Decoder(kind).decode
    made: dict[str, T] = {}
    while rows:
        for name, record in rows[-SLICE_RECORDS:]:
            made[name] = decode(record)
        del rows[-SLICE_RECORDS:]
        await asyncio.sleep(0)
    return made
