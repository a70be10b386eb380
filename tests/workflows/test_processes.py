"""The workers on this machine: one for each core or each GPU, each with its own environment."""

from __future__ import annotations

import os

import psutil
import pytest
from distributed import Client, Status

from slidetriage.errors import UsageError
from slidetriage.workflows.processes import (
    Keeper,
    Process,
    name_gpus,
    plan_processes,
    start_cluster,
)

FOUR = ("0", "1", "2", "3")


def seen(processes: tuple[Process, ...]) -> list[dict[str, str]]:
    return [dict(process.environment) for process in processes]


def test_on_the_cpu_workers_share_the_cores_and_have_a_thread_more_than_theirs() -> None:
    assert plan_processes("cpu", None, cores=1) == (Process(2),)
    assert plan_processes("cpu", None, cores=3) == (Process(4),)
    assert plan_processes("cpu", None, cores=16) == (Process(5),) * 4
    assert plan_processes("cpu", None, cores=18) == (Process(4),) * 5
    assert plan_processes("cpu", 5, cores=3) == (Process(2),) * 5
    assert plan_processes("cpu", 1, cores=64) == (Process(9),)


def test_each_gpu_has_a_worker_that_sees_it_alone() -> None:
    processes = plan_processes("cuda", None, gpus=FOUR, cores=16)
    assert seen(processes) == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in FOUR]
    assert {process.threads for process in processes} == {5}


@pytest.mark.parametrize(("cores", "threads"), [(1, 2), (4, 2), (9, 3), (32, 9), (256, 9)])
def test_readers_share_the_cores_and_are_at_most_eight(cores: int, threads: int) -> None:
    processes = plan_processes("cuda", None, gpus=FOUR, cores=cores)
    assert [process.threads for process in processes] == [threads] * 4


def test_fewer_workers_take_the_first_gpus_and_all_cores() -> None:
    processes = plan_processes("cuda", 2, gpus=("GPU-8f", "5", "6"), cores=8)
    assert seen(processes) == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("GPU-8f", "5")]
    assert {process.threads for process in processes} == {5}


def test_a_numbered_gpu_has_one_worker_that_sees_what_this_process_sees() -> None:
    # `cuda:2` is a name in this process's own numbering, so that must not change.
    assert plan_processes("cuda:2", None, gpus=FOUR, cores=4) == (Process(5),)


@pytest.mark.parametrize(
    ("device", "wanted", "gpus", "message"),
    [
        ("cuda", 5, FOUR, "--workers 4"),
        ("cuda:1", 2, FOUR, "--workers 1"),
        ("cuda", None, (), "0 CUDA devices"),
        ("cuda:4", None, FOUR, "4 CUDA devices"),
        ("cuda:x", None, FOUR, "cuda:x"),
    ],
)
def test_what_the_gpus_cannot_do_is_refused(
    device: str, wanted: int | None, gpus: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan_processes(device, wanted, gpus=gpus, cores=8)


def test_gpus_are_named_as_cuda_names_them() -> None:
    assert name_gpus(2, None) == ("0", "1")
    assert name_gpus(2, "3, 1") == ("3", "1")
    assert name_gpus(1, "2,-1,4") == ("2",), "CUDA ends the list at what is not there"
    assert name_gpus(0, "") == ()


def test_processes_start_with_their_own_environment_and_threads() -> None:
    planned = plan_processes("cuda", None, gpus=("7", "GPU-8f"), cores=4)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    with start_cluster(planned) as cluster, Client(cluster) as client:
        names = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        assert sorted(names.values()) == ["7", "GPU-8f"]
        assert set(client.nthreads().values()) == {3}
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


def test_workers_close_although_one_of_them_never_began() -> None:
    """As when Ctrl-C comes while they start."""
    cluster = start_cluster(plan_processes("cpu", 1, cores=1))
    pids = [nanny.pid for nanny in cluster.workers.values()]

    async def create() -> None:
        late = Keeper(cluster.scheduler_address, security=cluster.security, nthreads=1)
        assert late.status == Status.init
        cluster._created.add(late)

    cluster.sync(create)
    cluster.close()
    assert cluster.status == Status.closed
    for pid in pids:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
