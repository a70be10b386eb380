"""Commands forked from a process that has imported everything and converted the default network.

To start the command line cold takes seven seconds of a core, most of it for what is the same each
time. `WarmStart` is the side of the tests; `main` is the process that commands are forked from. A
command has its session, environment, folder, output and hooks as if it had been started alone.
"""

from __future__ import annotations

import atexit
import os
import pickle
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import NoReturn

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Order:
    """What to run."""

    arguments: Sequence[str]
    """Those of `child.py`."""
    environment: Mapping[str, str]
    stdout: str
    stderr: str


class WarmStart:
    """Forks commands, one after the other, in sessions of their own."""

    def __init__(self, prefix: Sequence[str], environment: Mapping[str, str]) -> None:
        ours, theirs = Pipe()
        handle = theirs.fileno()
        self._link = ours
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "faults.warm", str(handle)],
            pass_fds=(handle,),
            stdin=subprocess.DEVNULL,
            env=dict(environment),
        )
        theirs.close()

    def run(self, order: Order, timeout_s: float) -> tuple[int, int | None, int]:
        """Its number, its exit status, None where it was killed for hanging, and most kB."""
        self._link.send_bytes(pickle.dumps(order))
        pid: int = self._link.recv()
        hung = not self._link.poll(timeout_s)
        if hung:
            os.killpg(pid, signal.SIGKILL)
        status, peak_kb = self._link.recv()
        return pid, None if hung else os.waitstatus_to_exitcode(status), peak_kb

    def close(self) -> None:
        """End the process that commands are forked from."""
        self._link.close()
        self._process.wait()


def main() -> None:
    """Fork what is ordered until nobody orders any more."""
    link = Connection(int(sys.argv[1]))
    warm_up()
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads would not be there in a fork"
    while True:
        try:
            order = pickle.loads(link.recv_bytes())
        except EOFError:
            return
        pid = os.fork()
        if pid == 0:
            link.close()
            become(order)
        link.send(pid)
        _, status, usage = os.wait4(pid, 0)
        link.send((status, usage.ru_maxrss))


def warm_up() -> None:
    """Import what commands need, and convert the network; to compile it would start threads."""
    import slidetriage.workflows.preload  # noqa: F401
    from faults import child  # noqa: F401
    from slidetriage.models.compiled import Conversion, ConversionError
    from slidetriage.models.store import load_bundle
    from slidetriage.workflows.settings import Settings

    def refuse(*_: object, **__: object) -> NoReturn:
        raise ConversionError("converted only")

    compile_it, Conversion.compile = Conversion.compile, refuse  # type: ignore[method-assign]
    load_bundle(Settings().model, device="cpu").prepare()
    Conversion.compile = compile_it  # type: ignore[method-assign]


def become(order: Order) -> NoReturn:
    """Be the command; never returns."""
    code = 1
    try:
        os.setsid()
        for name, handle in ((order.stdout, 1), (order.stderr, 2)):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, handle)
            os.close(file)
        os.environ.clear()
        os.environ.update(order.environment)
        hooks = Path(order.environment["PYTHONPATH"].partition(os.pathsep)[0], "sitecustomize.py")
        if hooks.exists():
            runpy.run_path(str(hooks))
        from faults import child

        sys.argv = ["child.py", *order.arguments]
        child.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:  # noqa: BLE001 - told as an interpreter tells it
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # as where a program ends by itself
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
