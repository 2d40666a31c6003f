# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled heart: framing, tables, corked output. Knows bytes; knows no event loop, no protocol, no handler."""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memrchr

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object)

HAS_SSE2 = bool(SCAN_SSE2)


# ---------------------------------------------------------------------------------------------- scanning, for everybody

cdef bytes span_bytes(span_t span):
    return PyBytes_FromStringAndSize(span.at, span.len) if span.at != NULL else None


def scan(bytes line not None, int depth_max=256):
    """What one line is, as a tuple `(kind, members)`.

    `kind` is "message", "array", "scalar", "blank", "bad" or "deep" (nested deeper than `depth_max`). `members` maps the
    names that routing needs to their raw JSON; for "bad" and "deep" it holds what stood before the fault. A raw newline
    ends the line. With "odd" among the members the line has an escaped or repeated member name that wants a full parser.
    """
    cdef frame_t frame
    cdef const char* end = NULL
    cdef bytes padded = line + b"\n" + b"\0" * SCAN_SLACK
    cdef int kind = scan_frame(PyBytes_AS_STRING(padded), depth_max, &frame, &end)
    if kind == SCAN_BLANK:
        return "blank", {}
    spans = {
        "jsonrpc": span_bytes(frame.jsonrpc), "id": span_bytes(frame.id), "method": span_bytes(frame.method),
        "params": span_bytes(frame.params), "result": span_bytes(frame.result), "error": span_bytes(frame.error),
        "name": span_bytes(frame.name), "arguments": span_bytes(frame.arguments),
        "version": span_bytes(frame.version), "capabilities": span_bytes(frame.capabilities),
        "progress_token": span_bytes(frame.progress_token), "log_level": span_bytes(frame.log_level),
    }
    members = {name: value for name, value in spans.items() if value is not None}
    if frame.flags & SCAN_ODD:
        members["odd"] = b"true"
    if kind == SCAN_BAD:
        return ("deep" if frame.flags & SCAN_DEEP else "bad"), members
    return {SCAN_OK: "message", SCAN_ARRAY: "array", SCAN_SCALAR: "scalar"}[kind], members


def json_string(str text not None):
    """`text` as a JSON string, quotes included, as the answers write it. Raises UnicodeEncodeError for lone surrogates."""
    cdef bytes raw = text.encode()
    cdef size_t count = len(raw)
    cdef Block room = Block(6 * count + 18)
    room.data[0] = c'"'
    count = scan_write_string(room.data + 1, PyBytes_AS_STRING(raw), count)
    room.data[count + 1] = c'"'
    return PyBytes_FromStringAndSize(room.data, count + 2)


# ---------------------------------------------------------------------------------------------- memory that is read into

@cython.final
cdef class Block:
    """Memory that frames are read into. It shows the window last set, so that msgspec decodes without a copy.

    A decoded `msgspec.Raw` keeps the block alive by a reference: whoever wants to write into a block again asks
    `Py_REFCNT` first and, where somebody still looks, leaves the block to them and takes another.
    """

    def __cinit__(self, size_t size):
        self.data = <char*>malloc(size + SCAN_SLACK)
        if self.data == NULL:
            raise MemoryError
        self.size = size

    def __dealloc__(self):
        free(self.data)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.window_at, self.window_len, 1, flags)


cdef enum:
    LONG_SPARE_MAX = 4 << 20


@cython.final
cdef class Blocks:
    """Spare blocks of one size, shared by the connections of one loop: a connection at rest holds none."""

    def __init__(self, size_t size=1 << 16):
        self.size = size
        self.spare = []

    cdef Block take(self):
        return <Block>self.spare.pop() if self.spare else Block(self.size)

    cdef Block take_long(self, size_t at_least):
        "For a line longer than a block. The last one is kept: fresh memory of a megabyte is 256 page faults."
        cdef Block block = self.long_spare
        if block is not None and block.size >= at_least:
            self.long_spare = None
            return block
        return Block(at_least)

    cdef int give(self, Block block) except -1:
        # only the caller's variable holds it; more means that somebody still looks into it
        if Py_REFCNT(block) > 1:
            return 0
        if block.size == self.size:
            if len(self.spare) < 4:
                self.spare.append(block)
        elif self.size < block.size <= LONG_SPARE_MAX:
            self.long_spare = block
        return 0


@cython.final
cdef class Inbox:
    """The bytes of one connection that are read but not yet handled: [start, ready) whole lines, [ready, end) the rest.

    A line longer than `frame_bytes_max` is never kept: `skipping` is set, its head stays until `refuse` has been told,
    and the bytes up to its newline are dropped as they come.
    """

    def __cinit__(self, Blocks blocks not None, size_t frame_bytes_max):
        self.blocks = blocks
        self.frame_bytes_max = frame_bytes_max

    cdef size_t room(self, char** at) except 0:
        "Where to read the next bytes, and how many fit."
        cdef Block bigger
        cdef size_t kept = self.end - self.start
        if self.block is None:
            self.block = self.blocks.take()
            self.start = self.ready = self.end = 0
        elif self.block.size < self.blocks.size or self.block.size - self.end < self.block.size >> 2:
            # a short rest was parked in a small block, or a long line fills its block: twice the room, one copy
            bigger = self.blocks.take() if 2 * kept <= self.blocks.size else self.blocks.take_long(2 * self.block.size)
            memcpy(bigger.data, self.block.data + self.start, kept)
            self.ready -= self.start
            self.start, self.end = 0, kept
            self.block = bigger
        at[0] = self.block.data + self.end
        return self.block.size - self.end

    cdef int commit(self, size_t count) except -1:
        "`count` bytes were read. 1: there are whole lines now, 0: not yet, 2: the line is too long (once a line)."
        cdef char* data = self.block.data
        cdef char* newline
        cdef size_t fresh = self.end
        self.end += count
        if self.skipping:
            newline = <char*>memchr(data + fresh, c"\n", count)
            if newline == NULL:
                self.end = fresh
                return 0
            self.skipping = False
            self.start = self.ready = newline + 1 - data
            fresh, count = self.start, self.end - self.start
        newline = <char*>memrchr(data + fresh, c"\n", count)
        if newline != NULL:
            self.ready = newline + 1 - data
        if self.end - self.ready > self.frame_bytes_max:
            self.skipping = True
            return 2 if self.ready == self.start else 1
        return self.ready > self.start

    cdef int refuse(self) except -1:
        "Drops what is kept of the line that was too long."
        self.end = self.ready
        return 0

    cdef int settle(self) except -1:
        "After the lines were handled: gives back what is not needed. A short rest moves into memory of its own size."
        cdef size_t kept = self.end - self.start
        cdef Block block = self.block, small
        if block is None or self.ready > self.start:
            return 0
        if kept == 0:
            self.block = None
            self.start = self.ready = self.end = 0
            self.blocks.give(block)
        elif kept <= self.blocks.size >> 2:
            if block.size >= self.blocks.size:
                small = Block(kept)
                memcpy(small.data, block.data + self.start, kept)
                self.block = small
                self.start = self.ready = 0
                self.end = kept
                self.blocks.give(block)
        elif self.start > 0:
            if Py_REFCNT(block) > 2:
                small = Block(block.size)
                memcpy(small.data, block.data + self.start, kept)
                self.block = small
            else:
                memmove(block.data, block.data + self.start, kept)
            self.start = self.ready = 0
            self.end = kept
        return 0

    def feed(self, const unsigned char[::1] data not None):
        """For tests: the whole lines (newline included) that `data` completes; None stands for a line too long."""
        cdef size_t done = 0, n
        cdef char* at = NULL
        cdef const char* newline
        lines = []
        while done < <size_t>data.shape[0]:
            n = min(self.room(&at), <size_t>data.shape[0] - done)
            memcpy(at, &data[done], n)
            done += n
            self.commit(n)
            while self.start < self.ready:
                newline = <const char*>memchr(self.block.data + self.start, c"\n", self.ready - self.start)
                n = newline + 1 - (self.block.data + self.start)
                lines.append(self.block.data[self.start:self.start + n] if n <= self.frame_bytes_max + 1 else None)
                self.start += n
            if self.skipping and self.end > self.ready:
                lines.append(None)
                self.refuse()
            if not self.skipping:
                self.settle()
        return lines


# ---------------------------------------------------------------------------------------------- memory that is written

@cython.final
cdef class Outbox:
    """Answers on their way out, joined until somebody writes them: [sent, end) still waits."""

    def __dealloc__(self):
        free(self.data)

    cdef int grow(self, size_t count) except -1:
        cdef size_t size
        cdef char* data
        if self.sent > self.size >> 1:  # what was sent makes room
            memmove(self.data, self.data + self.sent, self.end - self.sent)
            self.end -= self.sent
            self.sent = 0
            if self.end + count <= self.size:
                return 0
        size = max(2 * self.size, self.end + count, <size_t>1 << 14)
        data = <char*>realloc(self.data, size)
        if data == NULL:
            raise MemoryError
        self.data, self.size = data, size
        return 0

    cdef int release(self) except -1:
        "Everything is sent and nothing is under way: no memory is kept."
        free(self.data)
        self.data = NULL
        self.sent = self.end = self.size = 0
        return 0


# ---------------------------------------------------------------------------------------------- the same call again

@cython.final
cdef class Shapes:
    """The last few shapes of calls (_shape.h): enough for a client that calls a handful of tools in turn."""

    cdef int find(self, const char* line, const char* limit, frame_t* frame, const char** end) noexcept:
        "The number of the shape that this line has, the last one found first; -1 for none."
        cdef int k, i
        for k in range(SHAPES):
            i = (self.last + k) % SHAPES
            if self.shapes[i].front and shape_match(&self.shapes[i], line, limit, frame, end):
                self.last = i
                return i
        return -1

    cdef int learn(self, const char* line, const char* end, frame_t* frame) noexcept:
        "The number under which the line's shape is known from now on; the oldest one is forgotten."
        cdef int i = self.oldest
        self.oldest = (i + 1) % SHAPES
        shape_learn(&self.shapes[i], line, end, frame)
        self.any = True
        return i

    cdef void forget(self) noexcept:
        cdef int i
        for i in range(SHAPES):
            self.shapes[i].front = 0
        self.any = False


# ---------------------------------------------------------------------------------------------- names to objects

cdef inline uint32_t hash_bytes(const char* p, uint32_t n) noexcept nogil:
    "Keys are names that the server's author chose, never a client's: no seed is needed."
    cdef uint64_t h = 0x9E3779B97F4A7C15ULL ^ n, x
    while n >= 8:
        memcpy(&x, p, 8)
        h = (h ^ x) * 0xFF51AFD7ED558CCDULL
        h ^= h >> 32
        p += 8
        n -= 8
    x = 0
    while n:
        n -= 1
        x = (x << 8) | <unsigned char>p[n]
    h = (h ^ x) * 0xFF51AFD7ED558CCDULL
    return <uint32_t>(h ^ (h >> 32))


@cython.final
cdef class Table:
    """Raw bytes to objects, open addressing, at most half full. Changed by its owner's thread, read under the GIL."""

    def __cinit__(self):
        self.owned = {}
        self.mask = 15
        self.entries = <entry_t*>PyMem_Calloc(16, sizeof(entry_t))
        if self.entries == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.entries)

    def __len__(self):
        return len(self.owned)

    def __setitem__(self, bytes key not None, value):
        if key in self.owned:
            del self[key]
        self.owned[key] = value
        self.version += 1
        if len(self.owned) * 2 > self.mask:
            self.rebuild((self.mask + 1) * 2)
        else:
            self.insert(key, value)

    def __delitem__(self, bytes key not None):
        _kept = self.owned.pop(key)  # lives until the table no longer points at it
        self.version += 1
        self.rebuild(self.mask + 1)  # removal is rare: no tombstones to think about

    def get(self, bytes key not None):
        cdef PyObject* found = self.find(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        return <object>found if found != NULL else None

    def rebuild(self, uint32_t size):
        cdef entry_t* fresh = <entry_t*>PyMem_Calloc(size, sizeof(entry_t))
        if fresh == NULL:
            raise MemoryError
        PyMem_Free(self.entries)
        self.entries, self.mask = fresh, size - 1
        for key, value in self.owned.items():
            self.insert(key, value)

    cdef int insert(self, bytes key, object value) except -1:
        "The key and value are borrowed from `owned`."
        cdef uint32_t n = PyBytes_GET_SIZE(key), h = hash_bytes(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)), i = h & self.mask
        while self.entries[i].key != NULL:
            i = (i + 1) & self.mask
        self.entries[i] = entry_t(PyBytes_AS_STRING(key), n, h, <PyObject*>value)
        return 0

    cdef PyObject* find(self, const char* key, uint32_t key_len) noexcept:
        cdef uint32_t h = hash_bytes(key, key_len), i = h & self.mask
        cdef entry_t* e = &self.entries[i]
        while e.key != NULL:
            if e.hash == h and e.key_len == key_len and memcmp(e.key, key, key_len) == 0:
                return e.value
            i = (i + 1) & self.mask
            e = &self.entries[i]
        return NULL
