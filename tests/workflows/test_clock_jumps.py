"""A clock that is set holds no message of Dask back, and makes no certificate invalid."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from distributed import batched
from distributed.batched import BatchedSend
from distributed.comm import Comm, connect, listen
from tornado.ioloop import IOLoop

from slidetriage import Settings
from slidetriage.workflows.clock_jumps import send_in_spite_of_the_clock
from slidetriage.workflows.distribution import DaskEngine
from slidetriage.workflows.loopback_tls import make_credentials

INTERVAL, BACK_S, PATIENCE_S = "50 ms", 3600.0, 3.0


def is_mended() -> bool:
    """In the process that this is called in."""
    return "next_deadline" in vars(BatchedSend)


class Clock:
    """A clock that can be set."""

    def __init__(self, real: Callable[[], float]) -> None:
        self._real, self._ahead_s = real, 0.0

    def __call__(self) -> float:
        return self._real() + self._ahead_s

    def set_back(self) -> None:
        """By an hour."""
        self._ahead_s -= BACK_S


async def send_while_the_clock_is_set_back(clock: Clock) -> list[str]:
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


@pytest.mark.parametrize("mended", [True, False])
def test_messages_go_out_after_the_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch, mended: bool
) -> None:
    """Where this fails for False, Dask has mended it itself, and ours can go."""
    monkeypatch.delattr(BatchedSend, "next_deadline", raising=False)
    if mended:
        send_in_spite_of_the_clock()
    clock = Clock(batched.time)
    monkeypatch.setattr(batched, "time", clock)
    monkeypatch.setattr(IOLoop, "time", lambda _: clock())
    arrived = asyncio.run(send_while_the_clock_is_set_back(clock))
    assert arrived == (["first", "second"] if mended else ["first"])


def test_processes_of_a_run_are_mended(tmp_path: Path) -> None:
    """This one, which has client and scheduler, and its workers."""
    engine = DaskEngine(Settings(), tmp_path, workers=1)
    try:
        assert is_mended()
        assert list(engine._client.run(is_mended).values()) == [True]
    finally:
        engine.close()


def test_certificates_of_a_run_are_valid_whatever_the_clock_says() -> None:
    """Those of Dask begin with the second in which they are made."""
    first, second = (make_credentials().get_tls_config_for_role("worker") for _ in range(2))
    assert first["key"] != second["key"]
    (certificate,) = x509.load_pem_x509_certificates(first["cert"].encode())
    assert certificate.not_valid_before_utc.year == 1970
    assert certificate.not_valid_after_utc.year == 9999
