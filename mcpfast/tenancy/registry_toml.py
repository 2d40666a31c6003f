"""A registry in a file of TOML: ``[plans.NAME]``, ``[tenants.ID]``, ``[keys.ID]``. The file is the truth, whoever wrote it.

Whoever writes through us (`mcpfast tenant add`, the admin API) waits for the lock beside the file, changes what changes and
nothing else (comments stay), and puts the new file in the place of the old one in one step. A large file is read, and every
file is edited, in a process of its own (`elsewhere`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mcpfast.tenancy import elsewhere, toml_file
from mcpfast.tenancy.identity import TenantRecord
from mcpfast.tenancy.key_records import KeyRecord
from mcpfast.tenancy.stores import Content

T = TypeVar("T")
READ_HERE_BYTES_MAX = 2 << 10  # of TOML: about a millisecond of work
FIRST_BYTES_MAX = (
    256 << 10
)  # while nobody is served; of a larger file more memory is left over than its tenants take
INODE, SIZE, WRITTEN = range(3)  # what stands where in a stamp
SETTLED_S = (
    0.1  # a file that is younger, and was written in its place, is looked at again before it is believed
)
_TENANTS = msgspec.msgpack.Decoder(list[TenantRecord])
_KEYS = msgspec.msgpack.Decoder(list[KeyRecord])


class TomlStore:
    """A `Store` in one file."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file)
        self._seen: tuple[int, ...] = ()
        self._keys: dict[str, KeyRecord] = {}

    async def load(self) -> Content:
        here_bytes_max = READ_HERE_BYTES_MAX if self._seen else FIRST_BYTES_MAX
        self._seen = self._stamp()  # before it is read: a change while we read is seen later
        if self._seen[SIZE] <= here_bytes_max:
            content = toml_file.content_in(self.file)
        else:
            content = await self._load_elsewhere()
        self._keys = dict(content.keys)
        return content

    async def changed(self) -> bool:
        stamp = self._stamp()
        return self._seen != stamp and not self._is_being_written(stamp)

    def _is_being_written(self, stamp: tuple[int, ...]) -> bool:
        """Whether somebody may be in the midst of writing into the file: for a moment it is empty, and so would be who is served.
        One that was put in the place of the old one, as we do it, is whole."""
        written_s = time.time() - stamp[WRITTEN] * 1e-9
        return bool(self._seen) and stamp[INODE] == self._seen[INODE] and 0 <= written_s < SETTLED_S

    async def put(self, record: TenantRecord, *, new: bool = False) -> TenantRecord:
        return await self._edit(toml_file.PutTenant(record, new), TenantRecord)

    async def remove(self, id: str) -> None:
        await self._edit(toml_file.RemoveTenant(id), type(None))
        self._keys = {name: key for name, key in self._keys.items() if key.tenant != id}

    async def find_key(self, id: str) -> KeyRecord | None:
        """As the file was loaded last, with what was changed here since."""
        return self._keys.get(id)

    async def put_key(self, key: KeyRecord) -> None:
        self._keys[key.id] = await self._edit(toml_file.PutKey(key), KeyRecord)

    async def revoke_key(self, id: str) -> KeyRecord:
        self._keys[id] = revoked = await self._edit(toml_file.RevokeKey(id), KeyRecord)
        return revoked

    def close(self) -> None:
        pass

    def _stamp(self) -> tuple[int, ...]:
        """Another one whenever the file is another one; all zeros where there is none."""
        try:
            state = self.file.stat()
        except OSError:
            return (0, 0, 0)
        return (state.st_ino, state.st_size, state.st_mtime_ns)

    async def _load_elsewhere(self) -> Content:
        frames = _frames(await elsewhere.call(toml_file.read, os.fsencode(self.file)))
        head = msgspec.msgpack.decode(next(frames), type=toml_file.Head)
        tenants: dict[str, TenantRecord] = {}
        keys: dict[str, KeyRecord] = {}
        for number, frame in enumerate(frames):
            if number < head.tenant_slices:
                tenants.update((record.id, record) for record in _TENANTS.decode(frame))
            else:
                keys.update((key.id, key) for key in _KEYS.decode(frame))
            await asyncio.sleep(0)
        return Content(head.plans, tenants, keys)

    async def _edit(self, change: Any, answer: type[T]) -> T:
        edit = msgspec.msgpack.encode(toml_file.Edit(str(self.file), change))
        return msgspec.msgpack.decode(await elsewhere.call(toml_file.edit, edit), type=answer)


def _frames(data: bytes) -> Iterator[memoryview]:
    view, at = memoryview(data), 0
    while at < len(data):
        end = at + 4 + int.from_bytes(view[at : at + 4], "big")
        yield view[at + 4 : end]
        at = end
