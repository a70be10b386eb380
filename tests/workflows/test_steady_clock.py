"""A clock that is set holds nothing of Dask back, and makes no certificate invalid."""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from pathlib import Path

import pytest
from cryptography import x509
from distributed import batched
from distributed.batched import BatchedSend
from distributed.comm import Comm, connect, listen
from tornado.ioloop import IOLoop, PeriodicCallback

from slidetriage import Settings
from slidetriage.workflows.distribution import DaskEngine
from slidetriage.workflows.loopback_tls import make_credentials
from slidetriage.workflows.steady_clock import keep_time_steadily, steady_time

INTERVAL, BACK_S, PATIENCE_S = "50 ms", 3600.0, 1.0


class Clock:
    """The system's clock, which can be set."""

    def __init__(self) -> None:
        self._real, self._ahead_s = time.time, 0.0

    def __call__(self) -> float:
        return self._real() + self._ahead_s

    def set_back(self) -> None:
        """By an hour."""
        self._ahead_s -= BACK_S


@pytest.fixture(params=["by the system", "steadily"])
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of all in this process, by which Dask goes or does not go."""
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    if request.param == "by the system":
        monkeypatch.setattr(batched, "time", clock)
        monkeypatch.setattr(IOLoop, "time", lambda _: clock())
    else:
        keep_time_steadily()
    return clock


def minds(clock: Clock) -> bool:
    """Whether Dask goes by it."""
    return batched.time is clock  # type: ignore[attr-defined]  # where it has its clock


async def send_while_it_is_set_back(clock: Clock) -> list[str]:
    """What arrives of two messages, the clock being set back while the second waits."""
    arrived: list[str] = []

    async def receive(comm: Comm) -> None:
        while len(arrived) < 2:
            arrived.extend(await comm.read())

    async with listen("inproc://", receive) as listener:
        comm = await connect(listener.contact_address)
        sender = BatchedSend(interval=INTERVAL)
        sender.start(comm)
        sender.send("first")
        while not arrived:
            await asyncio.sleep(0.001)
        sender.send("second")  # within the interval: it waits
        await asyncio.sleep(0)
        clock.set_back()
        for _ in range(int(PATIENCE_S / 0.01)):
            if len(arrived) == 2:
                break
            await asyncio.sleep(0.01)
        sender.abort()
    return arrived


def test_messages_go_out_although_the_clock_is_set_back(clock: Clock) -> None:
    """Where this fails by the system's clock, Dask has mended it, and ours may be needless."""
    arrived = asyncio.run(send_while_it_is_set_back(clock))
    assert arrived == (["first"] if minds(clock) else ["first", "second"])


async def beat_while_it_is_set_back(clock: Clock) -> int:
    """Beats of what is to be done every few milliseconds, after the clock was set back."""
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    heart = PeriodicCallback(beat, 5)
    heart.start()
    while not beats:
        await asyncio.sleep(0.001)
    # As its time has come: the next one is reckoned by the clock before and awaited by that after.
    plain = heart._update_next

    def set_back_in_between(now: float) -> None:
        plain(now)
        heart._update_next = plain  # type: ignore[method-assign]
        clock.set_back()

    heart._update_next = set_back_in_between  # type: ignore[method-assign]
    before = beats
    await asyncio.sleep(PATIENCE_S)
    heart.stop()
    return beats - before


def test_hearts_go_on_beating(clock: Clock) -> None:
    beats = asyncio.run(beat_while_it_is_set_back(clock))
    assert beats <= 1 if minds(clock) else beats > 10


def test_it_is_the_time_of_day() -> None:
    assert abs(steady_time() - time.time()) < 60
    assert steady_time() <= steady_time()


WAITING = ("batched", "client", "comm.core", "core", "nanny", "scheduler", "utils", "worker")
"""Modules of Dask that wait until a time."""


def is_kept() -> bool:
    """Whether Dask goes by the steady clock in the process that this is called in."""
    clocks = {import_module(f"distributed.{name}").time for name in WAITING}
    return clocks == {steady_time} and IOLoop.time.__module__ == keep_time_steadily.__module__


def test_processes_of_a_run_go_by_it(tmp_path: Path) -> None:
    """This one, which has client and scheduler, and its workers."""
    engine = DaskEngine(Settings(), tmp_path, workers=1)
    try:
        assert is_kept()
        assert list(engine._client.run(is_kept).values()) == [True]
    finally:
        engine.close()


def test_certificates_of_a_run_are_valid_whatever_the_clock_says() -> None:
    """Those of Dask begin with the second in which they are made."""
    first, second = (make_credentials().get_tls_config_for_role("worker") for _ in range(2))
    assert first["key"] != second["key"]
    (certificate,) = x509.load_pem_x509_certificates(first["cert"].encode())
    assert certificate.not_valid_before_utc.year == 1970
    assert certificate.not_valid_after_utc.year == 9999
