"""Fixtures every test may use: real data where it lies, and small slides painted on the spot."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

# Tests run side by side, one for each core: with as many threads each as there are cores, these
# wait for one another most of the time. Read when torch and NumPy are loaded; processes that tests
# start have it too.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import pytest

from slidetriage.models import Bundle, Device
from slidetriage.workflows import finishing, station
from slidetriage.workflows.decoding import Nursery
from slidetriage.workflows.settings import DEFAULT_BUNDLE
from slidetriage.wsi import PhantomSpec, paint_phantom
from tiny_slides import gradient, patch_table, tile_offsets, write_tiff

DATA = Path(
    os.environ.get("SLIDETRIAGE_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
)


class KeptNursery(Nursery):
    """Outlives the run that asked for it."""

    def close(self) -> None:
        """Stay for the next run; every run ends its own decoders before this."""


@pytest.fixture(scope="session", autouse=True)
def _one_nursery() -> Iterator[None]:
    """All runs of a test process have one nursery: to start one takes a second of imports each.

    Runs on workers and by the command line have their own, as users' runs do.
    """
    kept = cache(KeptNursery)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(station, "Nursery", kept)
        yield
    if kept.cache_info().currsize:
        Nursery.close(kept())


@pytest.fixture(scope="session", autouse=True)
def _one_scout() -> Iterator[None]:
    """All runs of a test process share the shipped model: to convert it takes a second each.

    Runs on workers and by the command line load their own, and so do tests of the model itself.
    """
    plain: Callable[..., Bundle] = station.load_bundle

    @cache
    def load_scout(device: Device) -> Bundle:
        return plain(DEFAULT_BUNDLE, device=device)

    def load(model: str, *, device: Device) -> Bundle:
        return load_scout(device) if model == DEFAULT_BUNDLE else plain(model, device=device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(station, "load_bundle", load)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_picture_each() -> Iterator[None]:
    """What was drawn is not drawn again for equal input: half a second each, often the same slide.

    Runs on workers and by the command line draw theirs, and so do tests of the drawing.
    """
    plain, drawn = finishing.draw_overlay, dict[bytes, bytes]()

    def draw(path: Path, **shown: Any) -> None:
        key = hashlib.sha256(pickle.dumps(shown)).digest()
        if key not in drawn:
            plain(path, **shown)
            drawn[key] = path.read_bytes()
        path.write_bytes(drawn[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finishing, "draw_overlay", draw)
        yield


@pytest.fixture(scope="session")
def data() -> Callable[[str], Path]:
    """Path of a file of the real data; skips where it is absent, fails where CI should have it."""

    def find(name: str) -> Path:
        path = (DATA / name).resolve()
        if not path.exists():
            reason = (
                f"real data not found: {name} (set SLIDETRIAGE_DATA to the folder that holds it)"
            )
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find


@pytest.fixture
def bounded_slide(tmp_path: Path) -> Path:
    """A generic TIFF of 1024 x 1024 px whose edge tiles are missing, so that it has bounds."""
    path = tmp_path / "bounded.tif"
    write_tiff(path, gradient(1024, 1024), compression=None)
    offsets, _, offset_table, count_table = tile_offsets(path)
    kept = {4 * 2 + 1, 4 * 2 + 2}  # third row of tiles, second and third column
    for index in range(len(offsets)):
        if index not in kept:
            patch_table(path, offset_table, index, 0)
            patch_table(path, count_table, index, 0)
    return path


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small painted slide with tumour, pen and blur; its tiles at 4 um/px come from level 0."""
    path = tmp_path_factory.mktemp("phantom") / "phantom.tif"
    paint_phantom(path, PhantomSpec(width_mm=3.0, height_mm=2.4, mpp=2.0))
    return path
