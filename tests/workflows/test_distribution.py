"""The Dask engine: private by default, and a slide that kills workers costs itself alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import popen_forkserver
from pathlib import Path

import dask
import psutil
import pytest
from distributed.comm import CommClosedError

from slidetriage import Resources, Settings
from slidetriage.errors import SlideTriageError, UsageError
from slidetriage.workflows import distribution
from slidetriage.workflows.distribution import DaskEngine
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.steps import PlanStep, SlideFailure, SlidePlan
from slidetriage.workflows.template import ENVIRONMENT


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DaskEngine]:
    opened = DaskEngine(Settings(), tmp_path, workers=1)
    yield opened
    opened.close()


def workers() -> list[psutil.Process]:
    """The worker processes, which are the children of this process's nannies."""
    children = psutil.Process().children(recursive=True)
    found = []
    for process in children:
        with contextlib.suppress(psutil.Error):  # it has just ended
            # They are forked from a process of the same command line, which is no worker.
            if all("forkserver" in " ".join(p.cmdline()) for p in (process, process.parent())):
                found.append(process)
    return found


def end_workers(engine: DaskEngine) -> None:
    """End the workers and those who would start them anew."""
    cluster = engine._cluster
    assert cluster is not None
    for nanny in list(cluster.workers.values()):
        cluster.sync(nanny.close)
    while engine._client.nthreads():
        time.sleep(0.05)


def kill_readers(path: Path, done: threading.Event, killed: list[int]) -> None:
    """Kill every worker that is seen with the file open."""
    while not done.is_set():
        for process in workers():
            with contextlib.suppress(psutil.Error):
                readers = process.children(recursive=True)
                if any(str(path) in {f.path for f in each.open_files()} for each in readers):
                    process.kill()
                    process.wait(10)
                    killed.append(process.pid)
        time.sleep(0.05)


def test_nothing_that_is_imported_for_workers_starts_a_thread() -> None:
    code = (
        "import psutil, slidetriage.workflows.preload, slidetriage.workflows.cells.preload\n"
        "assert psutil.Process().num_threads() == 1\n"
    )
    environment = {**os.environ, **ENVIRONMENT}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_workers_are_forked_from_a_process_of_one_thread(engine: DaskEngine) -> None:
    """A fork copies one thread, so what others held would stay locked for ever."""
    (template,) = {process.parent() for process in workers()}
    assert template.pid != os.getpid()
    assert template.num_threads() == 1
    held = {Path(found.path).name for found in template.memory_maps()}
    assert any(name.startswith("libtorch_cpu") for name in held), "it has imported torch"


def test_workers_end_with_the_process_they_are_forked_from(engine: DaskEngine) -> None:
    (worker,) = workers()
    worker.parent().kill()
    worker.wait(10)
    assert not worker.is_running()


def test_nothing_listens_beyond_this_machine(engine: DaskEngine) -> None:
    listening = [
        connection.laddr.ip
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening, "the scheduler listens somewhere"
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_a_step_that_kills_its_workers_is_given_up(
    engine: DaskEngine, phantom: Path, tmp_path: Path
) -> None:
    slow = tmp_path / "slow.tif"
    shutil.copy(phantom, slow)
    os.truncate(slow, 40 << 30)  # sparse: takes no room, and half a minute to hash
    done, killed = threading.Event(), list[int]()
    killer = threading.Thread(target=kill_readers, args=(slow, done, killed))
    step = PlanStep(SlideRequest(slow, "slow"), tmp_path / "staging" / "0")
    killer.start()
    # The same worker has these in work or at hand whenever it dies.
    bystanders = [
        PlanStep(SlideRequest(slow.with_name(f"none{n}.svs"), "none"), tmp_path / "staging" / "n")
        for n in range(2)
    ]
    try:
        for each in (step, *bystanders):
            engine.submit(each)
        receipts = dict(engine.next_done() for _ in range(3))
    finally:
        done.set()
        killer.join()
    receipt = receipts.pop(step)
    assert isinstance(receipt, SlideFailure)
    assert (receipt.step, receipt.code, receipt.rejected) == ("plan", "E_CRASH", True)
    assert [receipts[each].code for each in bystanders] == ["E_NOT_FOUND", "E_NOT_FOUND"]
    assert len(killed) == 4, "twice among others and twice alone"
    assert engine.slots > 0
    engine.submit(PlanStep(SlideRequest(phantom, "p"), tmp_path / "staging" / "1"))
    assert isinstance(engine.next_done()[1], SlidePlan), "the engine goes on with new workers"


@pytest.mark.parametrize("address", ["tcp://10.1.2.3:8786", "ws://cluster:80", "10.1.2.3:8786"])
def test_a_scheduler_elsewhere_needs_tls(address: str) -> None:
    with pytest.raises(UsageError, match="TLS"):
        Resources(scheduler=address)


@pytest.mark.parametrize("address", ["tls://10.1.2.3:8786", "tcp://127.0.0.1:8786"])
def test_tls_and_this_machine_are_accepted(address: str) -> None:
    assert Resources(scheduler=address).scheduler == address


@pytest.mark.slow
def test_a_running_scheduler_is_used(phantom: Path, tmp_path: Path) -> None:
    """A scheduler and worker started by hand, as a cluster has them, give the same outcome."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as cluster:
        engine = DaskEngine(Settings(), tmp_path, address=cluster.scheduler_address)
        engine.submit(PlanStep(SlideRequest(phantom, "p"), tmp_path / "staging" / "0"))
        _, receipt = engine.next_done()
        engine.close()
        assert isinstance(receipt, SlidePlan)
        assert cluster.scheduler_info["workers"], "the cluster is left as it was"
    assert os.path.exists(tmp_path / "staging" / "0" / "features.zarr")


@pytest.mark.parametrize(
    ("what", "error"), [("start_cluster", SlideTriageError), ("_register", OSError)]
)
def test_a_cluster_that_cannot_start_leaves_nothing_behind(
    what: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "distributed.worker.multiprocessing-method"
    before = dask.config.get(name)
    running = {process.pid for process in workers()}  # of an engine that is just ending

    def fail(*_: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(distribution, what, fail)
    with pytest.raises(error, match="no more processes"):
        DaskEngine(Settings(), tmp_path, workers=1)
    assert dask.config.get(name) == before
    assert {process.pid for process in workers()} <= running


def test_workers_that_cannot_be_forked_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the template dies with the wish for a worker in its hands; Dask then hangs."""

    def die(*_: object) -> None:
        raise EOFError("unexpected EOF")

    monkeypatch.setattr(popen_forkserver.Popen, "_launch", die)
    with pytest.raises(SlideTriageError, match="could not be started: EOFError") as caught:
        DaskEngine(Settings(), tmp_path, workers=1)
    assert caught.value.code == "E_SCHEDULER"


def test_a_scheduler_that_does_not_answer_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CommClosedError("TLS certificate does not match")

    running = {process.pid for process in workers()}
    monkeypatch.setattr(distribution, "Client", refuse)
    with pytest.raises(SlideTriageError, match=r"could not be started.*does not match") as caught:
        DaskEngine(Settings(), tmp_path, workers=1)
    assert caught.value.code == "E_SCHEDULER"
    assert {process.pid for process in workers()} <= running


def test_a_run_whose_workers_never_come_back_ends(
    engine: DaskEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribution, "GONE_S", 1.0)
    monkeypatch.setattr(distribution, "LOOKED_AFTER_S", 0.2)
    end_workers(engine)
    engine.submit(PlanStep(SlideRequest(tmp_path / "none.svs", "none"), tmp_path / "staging"))
    with pytest.raises(SlideTriageError, match="All workers have ended") as caught:
        engine.next_done()
    assert caught.value.code == "E_SCHEDULER"
    assert "finished slides are kept" in caught.value.mend


def test_a_scheduler_of_others_is_waited_for(
    engine: DaskEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its workers may stand in a queue for hours; that is said once."""
    monkeypatch.setattr(distribution, "GONE_S", 0.2)
    end_workers(engine)
    cluster, engine._cluster = engine._cluster, None
    try:
        for _ in range(5):
            engine._see_workers()
            time.sleep(0.2)
    finally:
        engine._cluster = cluster
    assert caplog.messages == ["no worker is connected to the scheduler; waiting for one"]
