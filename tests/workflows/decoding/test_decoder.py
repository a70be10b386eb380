"""A decoder reads what a reader reads, and a file that kills or hangs it costs only itself."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from slidetriage.errors import PixelsUnreadable, SlideNotReadable, SlideTriageError
from slidetriage.tiling import TileBatch, read_tiles, split_batches
from slidetriage.workflows.decoding import Decoder, Nursery
from slidetriage.workflows.decoding.tasks import Inspection
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.surveying import TilesWanted, survey_slide
from slidetriage.wsi import open_reader, open_slide
from tiny_slides import patch_table, tile_offsets

NEEDS = TilesWanted("test", 4.0, (3.5, 4.5), 50)


@pytest.fixture
def make_decoder() -> Iterator[Callable[..., Decoder]]:
    made: list[tuple[Decoder, Nursery]] = []

    def make(stall_s: float = 30.0) -> Decoder:
        nursery = Nursery()
        decoder = Decoder(nursery, Settings(stall_s=stall_s))
        made.append((decoder, nursery))
        return decoder

    yield make
    for decoder, nursery in made:
        decoder.close()
        nursery.close()


def first_batch(decoder: Decoder, path: Path) -> tuple[TileBatch, Inspection]:
    found = decoder.inspect(SlideRequest(path, "p"), NEEDS)
    survey = decoder.survey(found.slide, found.sha256, NEEDS)
    return next(split_batches(found.slide, survey.tiles, 32)), found


def test_it_reads_what_a_reader_here_reads(
    phantom: Path, make_decoder: Callable[..., Decoder]
) -> None:
    decoder = make_decoder()
    batch, found = first_batch(decoder, phantom)
    slide = open_slide(phantom)
    assert found.slide == slide
    assert found.sha256 == hashlib.sha256(phantom.read_bytes()).hexdigest()
    here = survey_slide(open_reader(slide), NEEDS, Settings())
    there = decoder.survey(slide, found.sha256, NEEDS)
    np.testing.assert_array_equal(there.picture, here.picture)
    np.testing.assert_array_equal(there.tiles.boxes, here.tiles.boxes)
    assert there.tissue_mm2 == here.tissue_mm2
    pixels, plain = decoder.read(batch, found.sha256), read_tiles(open_reader(slide), batch)
    np.testing.assert_array_equal(pixels.images, plain.images)
    np.testing.assert_array_equal(pixels.valid, plain.valid)
    assert pixels.readable.all()


def test_what_a_slide_lacks_is_told_as_here(
    tmp_path: Path, make_decoder: Callable[..., Decoder]
) -> None:
    decoder = make_decoder()
    with pytest.raises(FileNotFoundError, match=r"gone\.svs"):
        decoder.inspect(SlideRequest(tmp_path / "gone.svs", "gone"), NEEDS)
    text = tmp_path / "text.svs"
    text.write_text("no slide")
    with pytest.raises(SlideNotReadable) as caught:
        decoder.inspect(SlideRequest(text, "text"), NEEDS)
    assert caught.value.code == "E_NOT_SLIDE"


def test_a_decoder_that_is_killed_is_replaced(
    phantom: Path, make_decoder: Callable[..., Decoder]
) -> None:
    decoder = make_decoder()
    batch, found = first_batch(decoder, phantom)
    want = decoder.read(batch, found.sha256).images.copy()
    for signum in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV):
        os.kill(decoder.pid, signum)
        np.testing.assert_array_equal(decoder.read(batch, found.sha256).images, want)


def test_a_nursery_that_is_killed_is_replaced(
    phantom: Path, make_decoder: Callable[..., Decoder]
) -> None:
    decoder = make_decoder()
    batch, found = first_batch(decoder, phantom)
    want = decoder.read(batch, found.sha256).images.copy()
    child = decoder.pid
    os.kill(decoder.nursery.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)  # decoders end with their nursery
    np.testing.assert_array_equal(decoder.read(batch, found.sha256).images, want)
    assert decoder.pid != child


def test_a_decoder_that_hangs_is_replaced(
    phantom: Path, make_decoder: Callable[..., Decoder]
) -> None:
    decoder = make_decoder(stall_s=4)
    batch, found = first_batch(decoder, phantom)
    want = decoder.read(batch, found.sha256).images.copy()
    hung = decoder.pid
    os.kill(hung, signal.SIGSTOP)
    np.testing.assert_array_equal(decoder.read(batch, found.sha256).images, want)
    assert decoder.pid != hung
    assert not Path(f"/proc/{hung}").exists()


def test_a_tile_that_kills_decoders_is_passed_over(
    phantom: Path, make_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIDETRIAGE_CRASH_AT", "tile.7")
    decoder = make_decoder()
    batch, found = first_batch(decoder, phantom)
    pixels = decoder.read(batch, found.sha256)
    np.testing.assert_array_equal(np.flatnonzero(~pixels.readable), [7])
    assert not pixels.images[7].any()
    assert "SIGKILL" in pixels.error
    plain = read_tiles(open_reader(found.slide), batch)
    np.testing.assert_array_equal(np.delete(pixels.images, 7, 0), np.delete(plain.images, 7, 0))
    with pytest.raises(SlideNotReadable, match="kills the decoder") as caught:
        decoder.read(batch, found.sha256)
    assert caught.value.code == "E_CRASH"


def test_a_stated_hash_is_checked_before_anything_is_decoded(
    phantom: Path, tmp_path: Path, make_decoder: Callable[..., Decoder]
) -> None:
    decoder = make_decoder()
    content = phantom.read_bytes()
    path = tmp_path / "p.tif"
    path.write_bytes(content[:-100])
    beside = tmp_path / "p.tif.sha256"
    beside.write_text(f"{hashlib.sha256(content).hexdigest()}  p.tif\n")
    with pytest.raises(SlideNotReadable, match="was stated") as caught:
        decoder.inspect(SlideRequest(path, "p"), NEEDS)
    assert caught.value.code == "E_HASH"
    path.write_bytes(content)
    assert decoder.inspect(SlideRequest(path, "p"), NEEDS).sha256 == beside.read_text()[:64]


def test_a_slide_that_changed_is_no_damaged_slide(
    phantom: Path, tmp_path: Path, make_decoder: Callable[..., Decoder]
) -> None:
    path = tmp_path / "p.tif"
    path.write_bytes(phantom.read_bytes())
    decoder = make_decoder()
    batch, found = first_batch(decoder, path)
    offsets, _, _, table = tile_offsets(path)
    for index in range(len(offsets)):
        patch_table(path, table, index, 5)
    with pytest.raises(PixelsUnreadable, match="changed") as caught:
        make_decoder().read(batch, found.sha256)
    assert caught.value.code == "E_UNSTABLE"


def test_a_share_that_drops_and_comes_back_costs_nothing(
    phantom: Path, tmp_path: Path, make_decoder: Callable[..., Decoder]
) -> None:
    path, away = tmp_path / "p.tif", tmp_path / "away"
    path.write_bytes(phantom.read_bytes())
    batch, found = first_batch(make_decoder(), path)
    path.rename(away)
    back = threading.Timer(2.0, away.rename, (path,))
    back.start()
    pixels = make_decoder().read(batch, found.sha256)
    back.join()
    assert pixels.readable.all()
    np.testing.assert_array_equal(pixels.images, read_tiles(open_reader(found.slide), batch).images)


def test_closing_ends_a_call_that_waits(
    phantom: Path, make_decoder: Callable[..., Decoder]
) -> None:
    decoder = make_decoder()
    batch, found = first_batch(decoder, phantom)
    decoder.read(batch, found.sha256)
    os.kill(decoder.pid, signal.SIGSTOP)
    ending = threading.Timer(0.5, decoder.close)
    ending.start()
    with pytest.raises(SlideTriageError, match="ending"):
        decoder.read(batch, found.sha256)
    ending.join()
