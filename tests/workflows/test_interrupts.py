"""A wish to stop that other code swallows is heeded at the next step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pretending import Pretending
from slidetriage.workflows.interrupts import WISHES, check_interrupts, heed_interrupts
from slidetriage.workflows.jobs import Run, Silent
from slidetriage.workflows.settings import Settings


@pytest.fixture
def heeding() -> Iterator[None]:
    before = {wish: signal.getsignal(wish) for wish in WISHES}
    heed_interrupts()
    yield
    for wish, handler in before.items():
        signal.signal(wish, handler)


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.usefixtures("heeding")
def test_a_swallowed_wish_is_raised_again_once(wish: signal.Signals) -> None:
    with suppress(KeyboardInterrupt):
        signal.raise_signal(wish)
        pytest.fail("it is raised at once")
    run = Run([], Path("staging"), Silent(), Settings())
    with pytest.raises(KeyboardInterrupt):
        run.drive(Pretending([], 2, [0]))
    check_interrupts()  # and not for ever
