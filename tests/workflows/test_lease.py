"""One writer per folder, also where the file system knows no locks or another machine writes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
import pytest

from slidetriage.errors import OutputError
from slidetriage.workflows import lease
from slidetriage.workflows.lease import Lease, take_lease
from slidetriage.workflows.publishing import Claim, claim_output

HOLD = """
import sys, time
from pathlib import Path
from slidetriage.workflows import lease
lease.BEAT_S, lease.WATCHED_S, lease.LOOKS_S = 0.4, 2.0, 0.1
if len(sys.argv) > 2:
    lease._machine = lambda: (sys.argv[2], "another start")
held = lease.take_lease(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
held.close()
"""

MIRROR = """
import pathlib, sys, time
there, copied, path = map(pathlib.Path, sys.argv[1:])
while True:
    copied.write_bytes(there.read_bytes())
    copied.replace(path)
    print("copied", flush=True)
    time.sleep(0.2)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


@pytest.fixture(autouse=True)
def _five_times_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (lease.BEAT_S, lease.WATCHED_S) == (2, 10)
    for name, seconds in (("BEAT_S", 0.4), ("WATCHED_S", 2.0), ("LOOKS_S", 0.1)):
        monkeypatch.setattr(lease, name, seconds)


@contextmanager
def holder(path: Path, *host: str, locks: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder, of this machine or another; killed in the end."""
    command = [sys.executable, "-c", HOLD, str(path), *host]
    if not locks:
        command = [*without_locks(), *command]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what is traced outlives its tracer
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def without_locks() -> list[str]:
    """Runs a command on a system whose file systems know no locks."""
    if shutil.which("strace") is None:
        if os.environ.get("CI"):
            pytest.fail("strace is not installed: apt-get install strace")
        pytest.skip("strace is not installed: apt-get install strace")
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock",
            "-e", "inject=flock:error=ENOLCK"]  # fmt: skip


def fails(path: Path, *, locks: bool) -> str:
    """What a process says that cannot take the folder."""
    command = [sys.executable, "-c", HOLD, str(path)]
    command = command if locks else [*without_locks(), *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, input="")
    assert done.returncode != 0
    assert "OutputError" in done.stderr
    return done.stderr


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no-locks"])
def test_one_of_this_machine_is_kept_out_until_the_holder_ends(path: Path, locks: bool) -> None:
    with holder(path, locks=locks) as first:
        said = fails(path, locks=locks)
        assert "another run (process " in said
        assert first.stdin is not None
        first.stdin.close()
        first.wait(10)
        assert not path.exists()
    with holder(path, locks=locks):
        assert path.exists()


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no-locks"])
def test_what_a_killed_holder_leaves_is_taken_at_once(path: Path, locks: bool) -> None:
    with holder(path, locks=locks):
        pass
    assert path.exists()
    before = time.monotonic()
    with holder(path, locks=locks):
        assert time.monotonic() - before < lease.WATCHED_S


def test_another_machine_that_lives_is_seen_where_locks_do_not_reach(path: Path) -> None:
    """A copy of its file stands for a share that keeps every machine's locks apart."""
    there, copied = path.with_name("there"), path.with_name("copied")
    mirror = [sys.executable, "-c", MIRROR, str(there), str(copied), str(path)]
    with holder(there, "ward-7"):
        with subprocess.Popen(mirror, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(OutputError, match=r"process \d+ of ward-7") as caught:
                take_lease(path)
            process.kill()
        assert caught.value.code == "E_LOCKED"
        taken = take_lease(path)  # it moves no more
        assert orjson.loads(path.read_bytes())["pid"] == os.getpid()
        taken.close()


def test_another_machine_that_died_is_outwaited_without_locks(path: Path) -> None:
    with holder(path, "ward-7", locks=False):
        assert "of ward-7" in fails(path, locks=False)
    with holder(path, locks=False):
        assert b"ward-7" not in path.read_bytes()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_nobody_wrote_is_no_holder(path: Path) -> None:
    for content in (b"", b"4711", b"{}", b"\xff" * 5000):
        path.write_bytes(content)
        take_lease(path).close()
        assert not path.exists()


def test_a_holder_that_was_taken_for_dead_stops_and_touches_nothing(tmp_path: Path) -> None:
    lock = tmp_path / ".slidetriage.lock"
    with claim_output(tmp_path) as claim:
        claim.check()
        other = orjson.loads(lock.read_bytes()) | {"token": "other", "host": "ward-7", "pid": 12}
        lock.unlink()
        lock.write_bytes(orjson.dumps(other))
        (claim.staging / "theirs").touch()
        with pytest.raises(OutputError, match="process 12 of ward-7 took this run") as caught:
            check_until_lost(claim)
    assert caught.value.code == "E_LOCKED"
    assert orjson.loads(lock.read_bytes()) == other
    assert (tmp_path / ".staging" / "theirs").exists()


def check_until_lost(claim: Claim) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        claim.check()
        time.sleep(0.05)


def test_of_many_that_want_the_leavings_of_a_dead_one_a_single_one_gets_them(path: Path) -> None:
    with holder(path, locks=False):
        pass
    program = HOLD.replace("sys.stdin.read()", "time.sleep(2)")
    command = [*without_locks(), sys.executable, "-c", program, str(path)]
    many = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    told = [each.communicate() for each in many]
    assert sum(out == "held\n" for out, _ in told) == 1
    assert sum("another run" in err for _, err in told) == 3


def test_a_disk_that_refuses_is_no_other_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Lease) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Lease, "_write", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        take_lease(path)
    assert caught.value.code == "E_OUTPUT"
