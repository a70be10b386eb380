"""The owner's side of the nursery: starts it, has decoders forked, learns how they ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress

from slidetriage.errors import SlideTriageError
from slidetriage.workflows.template import ENVIRONMENT

from .nursery import ANSWER, COMMAND, FORK, REAP

_PROGRAM = "from slidetriage.workflows.decoding.nursery import main; main()"


class Nursery:
    """One for each process that reads slides; threads may share it.

    Importing what decoders need takes most of a second and happens beside whatever the owner does
    next. Decoders end when it is closed, and when the owner dies.
    """

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._start()

    @property
    def pid(self) -> int:
        """Of the process that decoders are forked from; 0 where it is closed."""
        return 0 if self._process is None else self._process.pid

    def fork(self, handles: tuple[int, int], memory_bytes: int) -> int:
        """Start a decoder with these two handles, its socket and its memory; returns its number.

        A nursery that was killed is started anew.
        """
        with self._asking:
            for _ in range(2):
                if self._closed:
                    break
                with suppress(ConnectionError):
                    return self._ask(COMMAND.pack(FORK, memory_bytes, 0), handles)
                self._stop()
                self._start()
        raise SlideTriageError("The run is ending.", code="E_CLOSED")

    def reap(self, pid: int) -> int:
        """Kill the decoder if it lives; its status as `os.waitpid` gives it, 0 if unknown."""
        with self._asking, suppress(ConnectionError):
            return self._ask(COMMAND.pack(REAP, pid, 0))
        return 0

    def close(self) -> None:
        """End the nursery and every decoder."""
        with self._asking:
            self._closed = True
            self._stop()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **ENVIRONMENT},
            )
        self._socket = ours

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _ask(self, command: bytes, handles: tuple[int, ...] = ()) -> int:
        if self._socket is None:
            raise ConnectionResetError
        socket.send_fds(self._socket, [command], handles)
        answer = self._socket.recv(ANSWER.size, socket.MSG_WAITALL)
        if len(answer) < ANSWER.size:
            raise ConnectionResetError
        return int(ANSWER.unpack(answer)[0])
