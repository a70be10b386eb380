"""The process that decoders are forked from: it has imported what they need, and holds no thread.

Started as a program of its own by `nursery_link`; commands come by a socket, and when that closes
every decoder ends.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection

from slidetriage.workflows.orphans import end_with_parent

COMMAND = struct.Struct("<cqq")
"""FORK with the bytes that a decoder may use, or REAP with its process number."""

ANSWER = struct.Struct("<q")
"""A process number, or a status as `os.waitpid` gives it."""

FORK, REAP = b"f", b"r"

PR_SET_NO_NEW_PRIVS = 38
"""prctl(2)."""

REAPED_WITHIN_S = 2
"""Seconds for a killed decoder to end."""


def main() -> None:
    """Fork decoders on demand until the owner closes the socket; its handle is the argument."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner ends its decoders itself
    from . import tasks  # noqa: F401 - imported once, for all decoders

    living: set[int] = set()
    ended: dict[int, int] = {}
    while True:
        try:
            message, handles, _, _ = socket.recv_fds(control, COMMAND.size, 2)
        except ConnectionError:
            message, handles = b"", []
        if len(message) < COMMAND.size:
            break
        kind, number, _ = COMMAND.unpack(message)
        _collect(living, ended)
        if kind == FORK:
            pid = os.fork()
            if pid == 0:
                control.close()
                _live(handles, number)
            for handle in handles:
                os.close(handle)
            living.add(pid)
            answer = pid
        else:
            answer = _reap(number, living, ended)
        with suppress(ConnectionError):
            control.sendall(ANSWER.pack(answer))
    for pid in living:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _collect(living: set[int], ended: dict[int, int]) -> None:
    """Note the status of decoders that have ended."""
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        living.discard(pid)
        ended[pid] = status


def _reap(pid: int, living: set[int], ended: dict[int, int]) -> int:
    """Kill a decoder if it lives, and give its status."""
    if pid in living:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for _ in range(REAPED_WITHIN_S * 20):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                living.discard(pid)
                return status
            time.sleep(0.05)
        return 0  # it waits for a disk that does not answer, and ends when that does
    return ended.pop(pid, 0)


def _live(handles: list[int], memory_bytes: int) -> None:
    """Be a decoder, within bounds, until its owner is gone; never returns."""
    code = 1
    try:
        _confine(memory_bytes)
        from .progress import SharedMemory
        from .serving import serve
        from .tasks import Tasks

        memory = SharedMemory(handles[1])
        serve(Connection(handles[0]), Tasks(memory))
        code = 0
    finally:
        os._exit(code)


def _confine(memory_bytes: int) -> None:
    """End with the nursery, write no core, gain no rights, and use no more memory than given."""
    end_with_parent()
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
        limit = mapped + memory_bytes
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most == resource.RLIM_INFINITY or limit < most:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)  # C libraries write file names and more to stderr
    os.close(nothing)
