"""A server as a child process: its stdin and stdout carry the messages, its stderr is shown and its end is
kept.

    close():  close stdin -- QUIT_S --> SIGTERM -- TERMINATE_S --> SIGKILL -- KILL_S --> let go

(specification, lifecycle: shutdown on stdio). The child leads a process group of its own, so that a wrapper
(npx, uv run, a shell) does not leave the real server behind. Only public asyncio is used:
`asyncio.create_subprocess_exec` gives no way to close the pipes of a child whose grandchild holds them open.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any, cast

from mcpfast.client.transport import READ_BYTES, Reader, StdioServer, Transport, Writer
from mcpfast.errors import AddressError

QUIT_S = 2.0  # after its stdin was closed the server may end by itself
TERMINATE_S = 2.0  # and after SIGTERM
KILL_S = 1.0  # the kernel needs a moment even for SIGKILL
LAST_WORDS_S = 0.5  # a dying server may still write to stderr, and its exit code must arrive
STDOUT_LINGER_S = 1.0  # stdout of a dead server that a child of it still holds open
STDERR_TAIL_BYTES = 4_096
STDERR_TAIL_LINES = 20

# What programs need to run at all; the rest of our environment may be nobody's business (see
# StdioServer.env).
HARMLESS = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER", "SYSTEMROOT", "TEMP")


class StdioTransport(Transport):
    """Starts the server when opened, ends it when closed."""

    def __init__(self, server: StdioServer) -> None:
        self._server = server
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the server, None while it does not run."""
        return None if self._child is None else self._child.process.get_pid()

    async def open(self) -> tuple[Reader, Writer]:
        server = self._server
        loop = asyncio.get_running_loop()
        env = None
        if server.env is not None:
            env = {name: os.environ[name] for name in HARMLESS if name in os.environ} | dict(server.env)
        try:
            _, child = await loop.subprocess_exec(
                lambda: Child(loop, server.stderr),
                server.command,
                *server.args,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=env,
                cwd=server.cwd,
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            what = f" in {str(server.cwd)!r}" if server.cwd is not None else ""
            raise AddressError(f"Cannot start {server.command!r}{what}: {error.strerror}") from None
        self._child = child
        return child.stdout, child

    async def last_words(self) -> str:
        return "" if self._child is None else await self._child.last_words()

    async def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end()


class Child(asyncio.SubprocessProtocol):
    """One running server process; also the writer of its stdin."""

    process: asyncio.SubprocessTransport

    def __init__(self, loop: asyncio.AbstractEventLoop, stderr: Any) -> None:
        self._loop = loop
        self.stdout = asyncio.StreamReader(limit=READ_BYTES, loop=loop)
        self._stderr = stderr
        self._tail = bytearray()
        self._exited = asyncio.Event()
        self._silent = asyncio.Event()  # stderr has ended
        self._gone = asyncio.Event()  # process reaped, pipes closed
        self._writable = asyncio.Event()
        self._writable.set()
        self._stdout_ended = False
        self._stdin_error: Exception | None = None
        self._ending = False

    # ---- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.process = cast("asyncio.SubprocessTransport", transport)
        stdout = self.process.get_pipe_transport(1)
        if stdout is not None:
            self.stdout.set_transport(stdout)  # so that a reader which lags behind pauses the pipe

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        chunk = cast("bytes", data)
        if fd == 2:
            self._tail += chunk
            del self._tail[:-STDERR_TAIL_BYTES]
            self._show(chunk)
        elif not self._stdout_ended and not self._ending:
            self.stdout.feed_data(chunk)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 0:
            self._stdin_error = exc or ConnectionResetError("the server closed its stdin")
            self._writable.set()
        elif fd == 1:
            self._end_stdout()
        else:
            self._silent.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def process_exited(self) -> None:
        self._exited.set()
        # Its children may hold stdout open, but the one we spoke to is dead: what it wrote is read by then.
        self._loop.call_later(STDOUT_LINGER_S, self._end_stdout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_stdout()
        self._gone.set()

    # ---- the writer

    def write(self, data: bytes) -> None:
        stdin = cast("asyncio.WriteTransport | None", self.process.get_pipe_transport(0))
        if stdin is not None and self._stdin_error is None:
            stdin.write(data)

    async def drain(self) -> None:
        await self._writable.wait()
        if self._stdin_error is not None:
            raise ConnectionResetError("the server closed its stdin") from self._stdin_error

    # ---- the end

    async def last_words(self) -> str:
        """One line about the exit, and the end of stderr below it."""
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._exited.wait()
                await self._silent.wait()
        except TimeoutError:
            pass
        code = self.process.get_returncode()
        if code is None:
            words = "the server process closed its stdout"
        elif code < 0:
            words = f"the server process was ended by signal {-code}"
        else:
            words = f"the server process ended with exit code {code}"
        lines = self._tail.decode("utf-8", "replace").strip().splitlines()[-STDERR_TAIL_LINES:]
        if lines:
            words += "; the end of its stderr:\n" + "\n".join(f"    {line}" for line in lines)
        return words

    async def end(self) -> None:
        """Ends the process, asking first; after the three deadlines nothing of it is left here."""
        self._ending = True
        try:
            stdin = self.process.get_pipe_transport(0)
            if stdin is not None:
                stdin.close()
            self._unblock_stdout()
            if not await self._exits_within(QUIT_S):
                self._signal(signal.SIGTERM)
                if not await self._exits_within(TERMINATE_S):
                    self._signal(signal.SIGKILL)
                    await self._exits_within(KILL_S)
        finally:
            if not self._exited.is_set():  # cancelled on the way
                self._signal(signal.SIGKILL)
            self.process.close()
        try:
            async with asyncio.timeout(KILL_S):
                await self._gone.wait()
        except TimeoutError:
            pass

    async def _exits_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        except TimeoutError:
            return False
        return True

    def _unblock_stdout(self) -> None:
        """A server that is blocked by a full pipe does not see that its stdin was closed: read on, into
        nothing.
        """
        stdout = cast("asyncio.ReadTransport | None", self.process.get_pipe_transport(1))
        if stdout is not None and not stdout.is_closing():
            stdout.resume_reading()

    def _end_stdout(self) -> None:
        if not self._stdout_ended:
            self._stdout_ended = True
            self.stdout.feed_eof()

    def _signal(self, number: signal.Signals) -> None:
        try:
            if os.name == "posix":
                os.killpg(self.process.get_pid(), number)  # not reaped yet: the number is still its own
            else:
                self.process.send_signal(number)
        except (ProcessLookupError, PermissionError):
            pass

    def _show(self, chunk: bytes) -> None:
        """Passes on what the server says on its stderr.

        Never an error for the client: it is only free text (section 8, S2).
        """
        target = self._stderr
        if target == asyncio.subprocess.DEVNULL and isinstance(target, int):
            return
        if target is None:
            target = sys.stderr
        try:
            if hasattr(target, "buffer"):
                target.buffer.write(chunk)
                target.flush()
            elif hasattr(target, "encoding"):
                target.write(chunk.decode("utf-8", "replace"))
            else:
                target.write(chunk)
        except (OSError, ValueError, AttributeError):
            self._stderr = asyncio.subprocess.DEVNULL
