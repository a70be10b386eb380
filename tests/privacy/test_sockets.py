"""Nothing listens beyond this machine, in any mode: every `bind` and `listen` is seen by strace.

Processes of a run come and go in milliseconds, so looking at their sockets now and then would miss
some; the calls that make a socket listen are all recorded.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.painted import write_good

pytestmark = pytest.mark.slow

PROGRAM = "from slidetriage.workflows.cli import main; main()"
CALL = re.compile(r"^((?P<pid>\d+) +)?(?P<call>bind|listen)\((?P<handle>\d+)")
MADE = re.compile(r"^((?P<pid>\d+) +)?socket\(.*= (?P<handle>\d+)$")
LOOPBACK = ('inet_addr("127.', 'inet_pton(AF_INET6, "::1"')
NOT_OF_A_NETWORK = ("AF_UNIX", "AF_NETLINK")


@dataclass(frozen=True)
class Sockets:
    """What a command's processes did."""

    beyond: list[str]
    """Calls by which another machine could reach them."""
    loopback: int
    listening: int


def read_trace(text: str) -> Sockets:
    """Judge the calls that strace wrote down."""
    beyond, loopback, listening = [], 0, 0
    bound: dict[tuple[str | None, str], bool] = {}
    for line in text.splitlines():
        if (made := MADE.match(line)) is not None:
            bound.pop((made["pid"], made["handle"]), None)
        if (call := CALL.match(line)) is None:
            continue
        at = (call["pid"], call["handle"])
        if call["call"] == "bind":
            near = any(each in line for each in LOOPBACK)
            loopback += near
            bound[at] = near or any(each in line for each in NOT_OF_A_NETWORK)
            if not bound[at]:
                beyond.append(line)
        else:
            listening += 1
            if at not in bound:  # the system then takes any address
                beyond.append(line)
    return Sockets(beyond, loopback, listening)


def trace(
    tmp_path: Path, *arguments: str | Path, stop_when: Path | None = None, code: int = 0
) -> Sockets:
    """Run a command under strace; where it would never end, interrupt it once a file is there."""
    strace = shutil.which("strace")
    if strace is None:
        if os.environ.get("CI"):
            pytest.fail("strace is not installed")
        pytest.skip("strace is not installed")
    kept = tmp_path / "trace"
    process = subprocess.Popen(
        [strace, "-f", "-qq", "--seccomp-bpf", "-e", "trace=socket,bind,listen", "-o", str(kept),
         sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    if stop_when is not None:
        until = time.monotonic() + 120
        while not stop_when.exists() and time.monotonic() < until:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=240)
    assert process.returncode == code, said
    return read_trace(kept.read_text())


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for number in (1, 2):
        write_good(folder / f"s{number}.svs", number)
    return folder


@pytest.fixture(scope="module")
def done(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run."""
    here = tmp_path_factory.mktemp("done")
    trace(here, "run", slides, "--out", here / "out", "--engine", "serial")
    return here / "out"


def test_the_census_sees_what_it_should() -> None:
    seen = read_trace(
        '1 bind(3, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("127.0.0.1")})\n'
        "1 listen(3, 100) = 0\n"
        '2 bind(3, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("0.0.0.0")})\n'
        "2 listen(9, 100) = 0\n"
        '3 bind(4, {sa_family=AF_UNIX, sun_path="/tmp/x"}, 110) = 0\n'
        "3 listen(4, 1) = 0\n"
    )
    assert [line[:6] for line in seen.beyond] == ["2 bind", "2 list"]
    assert (seen.loopback, seen.listening) == (1, 3)


def test_a_socket_for_all_the_world_is_found(tmp_path: Path) -> None:
    """The control: a program that does listen."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    program = (
        "import socket; s = socket.create_server(('', 0)); s.close(); socket.socket().listen()"
    )
    kept = tmp_path / "trace"
    subprocess.run(
        [strace, "-f", "-qq", "-e", "trace=socket,bind,listen", "-o", str(kept),
         sys.executable, "-c", program], check=True,
    )  # fmt: skip
    assert len(read_trace(kept.read_text()).beyond) == 2


def test_a_run_in_one_process_listens_nowhere(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = trace(tmp_path, "run", slides, "--out", out, "--engine", "serial")
    assert found == Sockets([], 0, 0)


@pytest.mark.parametrize("options", [(), ("--deidentify",)])
def test_a_run_with_workers_listens_on_this_machine_alone(
    slides: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    found = trace(tmp_path, "run", slides, "--out", out, "--workers", "2", *options)
    assert found.beyond == []
    assert found.loopback >= 3, "the scheduler, and each worker"


def test_watching_listens_on_this_machine_alone(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    log = out / "run" / "audit.jsonl"
    found = trace(
        tmp_path, "run", slides, "--out", out, "--watch", "--workers", "1",
        stop_when=log, code=130,
    )  # fmt: skip
    assert found.beyond == []


@pytest.mark.parametrize(
    ("command", "loopback"),
    [
        (("resume", "OUT"), False),
        (("status", "OUT"), False),
        (("verify", "OUT"), False),
        (("report", "OUT"), False),
        (("audit", "verify", "OUT"), False),
        (("info", "SLIDE"), False),
        (("plan", "SLIDE"), False),
        (("models", "show", "breast-idc-scout"), False),
        (("features", "SLIDE", "--out", "NEW", "--model", "breast-idc-scout"), True),
        (("features", "SLIDE", "--out", "NEW", "--engine", "serial"), False),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_every_other_command_keeps_to_itself(
    slides: Path, done: Path, tmp_path: Path, command: tuple[str, ...], loopback: bool
) -> None:
    places = {"OUT": done, "SLIDE": slides / "s1.svs", "NEW": tmp_path / "new"}
    found = trace(tmp_path, *(places.get(word, word) for word in command))
    assert found.beyond == []
    assert loopback or found == Sockets([], 0, 0)
