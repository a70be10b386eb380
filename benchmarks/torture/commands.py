"""The command line in a session of its own, to be killed.

It is started cold, or forked from a process that has imported everything. In the latter the picture
of a slide is not drawn: imports and drawing would take most of the time, and kills hit little else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any

import psutil

ENDED_WITHIN_S = 8.0
"""For what a command started, after it has ended itself."""

HANGS_AFTER_S = 120.0

GROUP = 0.2
"""Share of signals that go to all processes of a run at once."""

COLD = [sys.executable, "-c", "from slidetriage.workflows.cli import main; main()"]

_context = get_context("forkserver")
_context.set_forkserver_preload(["slidetriage.workflows.preload", "slidetriage.workflows.cli"])


_polling = Lock()
"""Starting a process looks at all others, and a status can be read but once."""


class Command:
    """One command line; its output goes to a file."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        said: Path,
        *,
        crash_at: str = "",
        cold: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        texts = [str(argument) for argument in arguments]
        self.said = said
        self._forked: ForkServerProcess | None = None
        self._started: subprocess.Popen[bytes] | None = None
        if cold:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "SLIDETRIAGE_CRASH_AT": crash_at}
            environment |= variables or {}
            with said.open("ab") as file:
                self._started = subprocess.Popen(
                    [*COLD, *texts], stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                    start_new_session=True, env=environment,
                )  # fmt: skip
            self.pid = self._started.pid
        else:
            with _polling:
                self._forked = _context.Process(
                    target=be_command, args=(texts, str(said), crash_at)
                )
                self._forked.start()
            assert self._forked.pid is not None
            self.pid = self._forked.pid

    def poll(self) -> int | None:
        """The exit status, minus a signal's number where one ended it; None while it lives."""
        if self._started is not None:
            return self._started.poll()
        assert self._forked is not None
        with _polling:
            return self._forked.exitcode

    def wait(self, seconds: float = HANGS_AFTER_S) -> int | None:
        """The exit status; None where it had to be killed because it hung."""
        until = time.monotonic() + seconds
        while (code := self.poll()) is None and time.monotonic() < until:
            time.sleep(0.01)
        if code is None:
            for process in in_session(self.pid):
                send(process.pid, signal.SIGKILL)
        return code


def be_command(arguments: list[str], said: str, crash_at: str) -> None:
    """Become the command line: a session of its own, output to a file, and `main`."""
    os.setsid()
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from slidetriage.workflows import cli, crash_points, finishing

    def draw(path: Path, **_: Any) -> None:
        path.write_bytes(b"no picture")

    finishing.draw_overlay = draw
    crash_points._WANTED, _, crash_points._COUNT = crash_at.partition("#")
    os.environ["SLIDETRIAGE_CRASH_AT"] = crash_at  # for the decoders
    sys.argv = ["slidetriage", *arguments]
    cli.main()


def warm_up() -> None:
    """Have the imports done before anything is timed."""
    process = _context.Process(target=os.getpid)
    process.start()
    process.join()


def in_session(session: int) -> list[psutil.Process]:
    """What is left of a session."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def orphans(sessions: Sequence[int]) -> list[str]:
    """What outlives its command by seconds; it is killed."""
    until = time.monotonic() + ENDED_WITHIN_S
    while left := [process for session in sessions for process in in_session(session)]:
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    names = [kind_of(process) for process in left]
    for process in left:
        send(process.pid, signal.SIGKILL)
    return names


def kind_of(process: psutil.Process) -> str:
    """What a process of a run is: cli, nursery, decoder, forkserver, worker, tracker."""
    try:
        line, parent = " ".join(process.cmdline()), process.parent()
        above = " ".join(parent.cmdline()) if parent else ""
        if "decoding.nursery" in line:
            return "decoder" if "decoding.nursery" in above else "nursery"
        if "resource_tracker" in line:
            return "tracker"
        if os.getsid(process.pid) == process.pid:
            return "cli"
        if "forkserver" in line:
            return "worker" if "forkserver" in above else "forkserver"
    except (psutil.Error, ProcessLookupError):
        return "gone"
    return "other"


def choose_target(session: int, random: Random, *, spared: Collection[str] = ()) -> tuple[str, int]:
    """A kind of process that is there, each as likely, or now and then all; and its number."""
    kinds: dict[str, list[int]] = {}
    for process in in_session(session):
        kinds.setdefault(kind_of(process), []).append(process.pid)
    for kind in ("gone", *spared):
        kinds.pop(kind, None)
    kind = random.choice(sorted(kinds)) if kinds else "group"
    if kind == "group" or random.random() < GROUP:
        return "group", -session
    return kind, random.choice(sorted(kinds[kind]))


def send(number: int, what: int) -> None:
    """Send a signal to a process, or where the number is negative to a group."""
    with suppress(ProcessLookupError, PermissionError):
        if number < 0:
            os.killpg(-number, what)
        else:
            os.kill(number, what)


def draw_signal(random: Random) -> int:
    """50 % KILL, 20 % TERM, 15 % INT, 10 % ABRT, 5 % STOP."""
    kinds = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGABRT, signal.SIGSTOP)
    return random.choices(kinds, (50, 20, 15, 10, 5))[0]
