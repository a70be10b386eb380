"""Who writes into a folder: a lock of the kernel where there is one, and a name that others see.

A lock ends with its process, but a share may know none, or hide those of one machine from the next.
So the holder also writes into the file who it is, and a number that it raises while it lives. Who
finds another machine's name there watches whether the number moves; clocks need not agree.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

import orjson

from slidetriage.errors import OutputError

BEAT_S = 2.0
"""Seconds between two signs of life."""

WATCHED_S = 10.0
"""Seconds without one after which another machine's holder is taken for dead."""

LOOKS_S = 0.5

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
"""What `flock` says where the file system knows no locks."""

_MOST_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a folder."""

    host: str
    boot: str
    """Of the machine's running kernel; two containers may have one, two starts never do."""
    pid: int
    started: int
    """Clock ticks from the start of the machine to that of the process."""
    token: str
    """Unlike that of any other run."""

    @property
    def near(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return (self.host, self.boot) == _machine()

    @property
    def lives(self) -> bool:
        """Whether a process of this machine is still there."""
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid}" if self.near else f"process {self.pid} of {self.host}"


class Lease:
    """A file that says who writes into its folder; made by `take_lease`."""

    def __init__(self, path: Path, handle: int, holder: Holder) -> None:
        self._path, self._handle, self._holder = path, handle, holder
        self._beats = 0
        self._taken_by: Holder | None = None
        self._ended = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._live, name="lease", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another run took this one for dead, as after a long sleep of the machine."""
        return self._taken_by is not None

    def check(self) -> None:
        """Raise `OutputError` (E_LOCKED) where the lease was lost."""
        if self._taken_by is not None:
            raise OutputError(
                f"{self._path.parent}: {self._taken_by} took this run for dead and writes here.",
                mend="Let it finish, or end it and run again.",
                code="E_LOCKED",
            )

    def close(self) -> None:
        """Give the folder up."""
        self._ended.set()
        self._thread.join()
        if not self.lost:
            self._path.unlink(missing_ok=True)
        os.close(self._handle)

    def _live(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(OSError):  # a share that is gone for a while
                there = _read(self._path)
                if there is not None and there.token != self._holder.token:
                    self._taken_by = there
                    return
                self._write()

    def _write(self) -> None:
        # Always of one length, so that nobody reads half of it.
        self._beats += 1
        text = orjson.dumps({**asdict(self._holder), "beats": f"{self._beats:012d}"})
        os.pwrite(self._handle, text, 0)
        os.ftruncate(self._handle, len(text))


def take_lease(path: Path) -> Lease:
    """Take the folder of `path` for this process.

    Raises
    ------
    OutputError
        Another run holds it (E_LOCKED), or nothing can be written there (E_OUTPUT).
    """
    holder = Holder(*_machine(), os.getpid(), _started(os.getpid()), uuid4().hex)
    while True:
        try:
            handle, made = _open(path)
        except OSError as error:
            raise refuse_output(path.parent, error) from error
        with ExitStack() as unless_taken:
            unless_taken.callback(os.close, handle)
            try:
                lease = _take(path, handle, holder, made=made)
            except OutputError:
                raise
            except OSError as error:
                if made:
                    path.unlink(missing_ok=True)
                raise refuse_output(path.parent, error) from error
            if lease is not None:
                unless_taken.pop_all()
                return lease


def _open(path: Path) -> tuple[int, bool]:
    """The file, and whether this process made it."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        with suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
        with suppress(FileNotFoundError):
            return os.open(path, flags), False


def _take(path: Path, handle: int, holder: Holder, *, made: bool) -> Lease | None:
    """The lease, or None where the file has gone meanwhile and all begins again."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _held(path, _read(path)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        if not made:
            _take_from_the_dead(path)
            return None
    else:
        there = None if made else _read(path)
        if there is not None and not there.near and _moves(path):
            raise _held(path, there)
    # A run that just ended may have unlinked the file between opening and locking it.
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(handle), path.stat()):
            return Lease(path, handle, holder)
    return None


def _take_from_the_dead(path: Path) -> None:
    """Remove the file of a holder that is no more; raises `OutputError` where it lives."""
    there = _read(path)
    lives = there.lives if there is not None and there.near else _moves(path)
    if lives:
        raise _held(path, _read(path))
    # By one rename, which only one of several that wait can do.
    aside = path.with_name(f"{path.name}.{uuid4().hex}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        found = _read(aside)
        if found is not None and found != there:
            # Somebody was faster, and this is the new holder's: back with it.
            with suppress(OSError):
                os.link(aside, path)
            aside.unlink(missing_ok=True)
            raise _held(path, found)
        aside.unlink(missing_ok=True)


def _moves(path: Path) -> bool:
    """Whether the file changes within the time that a holder would need to show that it lives."""
    before, until = _content(path), time.monotonic() + WATCHED_S
    while time.monotonic() < until:
        time.sleep(LOOKS_S)
        now = _content(path)
        if now != before:
            return now is not None
    return False


def _content(path: Path) -> bytes | None:
    """What the file holds now; opened anew, for which a share asks its server."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return None


def _read(path: Path) -> Holder | None:
    try:
        plain = orjson.loads(_content(path) or b"")
        return Holder(**{name: plain[name] for name in Holder.__slots__})
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


@cache
def _machine() -> tuple[str, str]:
    """Name and running kernel of this machine."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    with suppress(OSError):
        return socket.gethostname(), boot.read_text().strip()
    return socket.gethostname(), ""


def _started(pid: int) -> int:
    """When a process of this machine was started, in ticks since the machine was; 0 if it ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()  # from state on, see proc(5)
    return 0 if fields[0] in "ZX" else int(fields[19])


def _held(path: Path, holder: Holder | None) -> OutputError:
    who = "process unknown" if holder is None else str(holder)
    return OutputError(
        f"{path.parent}: another run ({who}) is writing here.",
        mend="Wait for it, or choose another --out.",
        code="E_LOCKED",
    )


def refuse_output(out: Path, error: OSError) -> OutputError:
    """What to raise where nothing can be written to an output folder."""
    return OutputError(
        f"{out}: results cannot be written here ({error.strerror}).",
        mend="Choose a folder you may write to with --out.",
    )
