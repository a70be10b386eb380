"""More than one machine: what docs/cluster.md says is done here, all on loopback."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import dask.config
import pytest
import yaml
from distributed import Client, Security

import slidetriage
from slidetriage import Resources, Settings, triage
from slidetriage.errors import SlideTriageError, UsageError
from slidetriage.workflows import distribution
from slidetriage.workflows.cli import EXIT_USAGE, exit_code
from slidetriage.workflows.distribution import DaskEngine
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.steps import PlanStep, SlidePlan
from slidetriage.workflows.worker_plugin import StationPlugin
from trees import tree

GUIDE = Path(__file__).parents[2] / "docs" / "cluster.md"
SETTINGS = Settings(batch_tiles=16)
NO_CERTIFICATES = {
    "distributed.comm.tls.ca-file": None,
    "distributed.comm.tls.client.cert": None,
    "distributed.comm.tls.client.key": None,
}


def block(kind: str, containing: str) -> str:
    """The one block of code in the guide that holds that text."""
    blocks = re.findall(rf"```{kind}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


@contextmanager
def running(*command: str, config: Path) -> Iterator[None]:
    """A Dask command in a process group of its own, of which nothing is left in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *command],
        env={**os.environ, "DASK_CONFIG": str(config)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def start_scheduler(stack: ExitStack, folder: Path, config: Path, *options: str) -> str:
    """The address of a new scheduler, which ends with the stack."""
    said = folder / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(said), *options)
    dashboard = ("--dashboard-address", "127.0.0.1:0", "--idle-timeout", "10m")
    stack.enter_context(running("scheduler", *options, *dashboard, config=config))
    for _ in range(600):
        if said.exists() and (text := said.read_text()).strip().endswith("}"):
            return str(yaml.safe_load(text)["address"])
        time.sleep(0.05)
    raise TimeoutError("the scheduler did not start")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's configuration, with certificates made by the guide's commands."""
    folder = tmp_path_factory.mktemp("tls")
    commands = block("sh", "openssl")
    subprocess.run(["sh", "-euc", commands], cwd=folder, check=True, capture_output=True)
    assert (folder / "node.key").stat().st_mode & 0o077 == 0
    file = tmp_path_factory.mktemp("config") / "distributed.yaml"
    file.write_text(block("yaml", "ca-file").replace("/lab/tls", str(folder)))
    return file


@pytest.fixture
def configured(config: Path) -> Iterator[None]:
    """This process as a host that is configured as the guide says."""
    ours = yaml.safe_load(config.read_text())
    with dask.config.set(dask.config.merge(dask.config.config, ours)):
        yield


@pytest.fixture(scope="module")
def cluster(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers in processes of their own, by TLS; one has a single thread."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("scheduler")
        address = start_scheduler(stack, folder, config, "--protocol", "tls")
        assert address.startswith("tls://127.0.0.1:")
        for threads in ("1", "2"):
            options = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
            local = ("--local-directory", str(folder), "--death-timeout", "60")
            command = ("worker", address, "--nworkers", "1", "--nthreads", threads)
            stack.enter_context(running(*command, *options, *local, config=config))
        yield address


@pytest.fixture(scope="module")
def expected(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("serial")
    triage(phantom, out, settings=SETTINGS, resources=Resources("serial"))
    return tree(out)


@pytest.mark.slow
@pytest.mark.usefixtures("configured")
def test_workers_reached_by_tls_give_the_same_bytes(
    cluster: str, phantom: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    with Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        assert sorted(client.nthreads().values()) == [1, 2]
        resources = Resources(scheduler=cluster)
        report = triage(phantom, tmp_path, settings=SETTINGS, resources=resources)
        assert report.complete, report.rows
        assert tree(tmp_path) == expected
        worked = client.run(lambda dask_worker: dask_worker.state.transition_counter)
        assert all(worked.values()), "both workers had steps"
        left = client.run(lambda dask_worker: list(dask_worker.plugins))
        assert not any("slidetriage" in str(name) for name in left.values())


@pytest.mark.usefixtures("configured")
@pytest.mark.slow
def test_runs_that_share_a_scheduler_keep_apart(
    cluster: str, phantom: Path, tmp_path: Path
) -> None:
    plans: list[SlidePlan] = []
    with ExitStack() as stack:
        engines = []
        for overlap in (0.0, 0.5):
            settings, out = Settings(overlap=overlap), tmp_path / str(overlap)
            engine = DaskEngine(settings, out, address=cluster)
            stack.callback(engine.close)
            engine.submit(PlanStep(SlideRequest(phantom, "p"), out / "staging"))
            engines.append(engine)
        for engine in engines:
            _, receipt = engine.next_done()
            assert isinstance(receipt, SlidePlan)
            plans.append(receipt)
    assert len(plans[1].tiles) > 3 * len(plans[0].tiles), "each has its own settings"


def test_without_certificates_the_scheduler_is_not_used(cluster: str, tmp_path: Path) -> None:
    with (
        dask.config.set(NO_CERTIFICATES),
        pytest.raises(UsageError, match="none are configured") as caught,
    ):
        DaskEngine(SETTINGS, tmp_path, address=cluster)
    assert "distributed.comm.tls" in str(caught.value)
    assert exit_code(caught.value) == EXIT_USAGE


@pytest.mark.usefixtures("configured")
def test_a_certificate_of_another_authority_is_refused(cluster: str, tmp_path: Path) -> None:
    other = Security.temporary()
    stranger = {
        "distributed.comm.tls.client.cert": other.tls_client_cert,
        "distributed.comm.tls.client.key": other.tls_client_key,
    }
    with dask.config.set(stranger), pytest.raises(UsageError, match="cannot be reached") as caught:
        DaskEngine(SETTINGS, tmp_path, address=cluster)
    assert cluster in str(caught.value)


@pytest.mark.usefixtures("configured")
def test_certificates_that_are_not_there_are_named(cluster: str, tmp_path: Path) -> None:
    lost = {"distributed.comm.tls.ca-file": str(tmp_path / "lost.pem")}
    with dask.config.set(lost), pytest.raises(UsageError, match="No such file"):
        DaskEngine(SETTINGS, tmp_path, address=cluster)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://127.0.0.1:port"])
def test_a_scheduler_that_is_not_there_is_named(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribution, "REACHED_WITHIN_S", 0.5)
    with pytest.raises(UsageError, match=f"{address} cannot be reached"):
        DaskEngine(SETTINGS, tmp_path, address=address)


def test_a_scheduler_that_goes_away_ends_the_run(phantom: Path, tmp_path: Path) -> None:
    (empty := tmp_path / "dask.yaml").write_text("{}")
    with ExitStack() as stack:
        scheduler = stack.enter_context(ExitStack())
        engine = DaskEngine(SETTINGS, tmp_path, address=start_scheduler(scheduler, tmp_path, empty))
        stack.callback(engine.close)
        engine.submit(PlanStep(SlideRequest(phantom, "p"), tmp_path / "staging"))
        scheduler.close()
        with pytest.raises(SlideTriageError, match="was lost") as caught:
            engine.next_done()
    assert caught.value.code == "E_SCHEDULER"


def test_a_worker_of_another_version_is_refused(tmp_path: Path) -> None:
    plugin = StationPlugin(SETTINGS, tmp_path, private=False)
    plugin.version = "0.0.9"
    with pytest.raises(UsageError, match=r"this is 0\.0\.9"):
        plugin.setup(None)


@pytest.mark.slow
@pytest.mark.usefixtures("configured")
def test_jobs_of_a_queue_give_the_same_bytes(
    phantom: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    """dask-jobqueue's own queue, which runs its jobs as processes of this machine."""
    from dask_jobqueue.local import LocalCluster

    async def close_pipes() -> None:
        # dask-jobqueue leaves them to the garbage collector, which warns of it.
        for job in jobs:
            job.stdout.close()
            job.stderr.close()

    with LocalCluster(
        cores=2,
        processes=1,
        memory="4GB",
        nanny=False,  # the queue kills a job's first process, and nothing else
        protocol="tls",
        security=Security(require_encryption=True),
        local_directory=str(tmp_path),
        scheduler_options={"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
        worker_extra_args=["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"],
    ) as queue:
        queue.scale(jobs=2)
        queue.wait_for_workers(2, timeout=60)
        jobs = [job.process for job in queue.workers.values()]
        resources = Resources(scheduler=queue.scheduler_address)
        report = triage(phantom, tmp_path / "out", settings=SETTINGS, resources=resources)
        queue.sync(close_pipes)
    for job in jobs:
        job.proc.wait(20)
    assert report.complete, report.rows
    assert tree(tmp_path / "out") == expected


@pytest.mark.usefixtures("configured")
def test_the_guides_slurm_script_asks_for_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dask_jobqueue import SLURMCluster

    asked: list[object] = []

    def note(slides: str, out: str, *, settings: Settings, resources: Resources) -> object:
        asked.extend((slides, out, settings.device, resources.scheduler))
        return SimpleNamespace(counts="counted")

    monkeypatch.setattr(slidetriage, "triage", note)
    monkeypatch.setattr(SLURMCluster, "scale", lambda _, jobs: asked.extend([jobs] * bool(jobs)))
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "night.py"
    script.write_text(block("python", "SLURMCluster").replace("ib0", "lo"))
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out
    assert said.endswith("counted\n")
    address = str(asked[-1])
    assert asked == [4, "/lab/scans", "/lab/results", "cpu", address]
    assert address.startswith("tls://127.0.0.1:")
    for directive in ("-p normal", "-A pathology", "--cpus-per-task=16", "-t 08:00:00"):
        assert f"#SBATCH {directive}\n" in said
    (command,) = [line for line in said.splitlines() if "dask_worker" in line]
    assert said.index("source /lab/slidetriage/bin/activate") < said.index(command)
    assert f" {address} " in command
    assert re.findall(r"--nthreads (\d+)", command)[-1] == "5", "the last one holds"
    assert re.findall(r"--nworkers (\d+)", command) == ["4"]
    assert "--dashboard-address 127.0.0.1:0" in command
    assert "--protocol tls" in command
    for flag, file in (("ca-file", "ca.pem"), ("cert", "node.pem"), ("key", "node.key")):
        (path,) = re.findall(rf"--tls-{flag} (\S+)", command)
        assert Path(path).is_file()
        assert path.endswith(file)
