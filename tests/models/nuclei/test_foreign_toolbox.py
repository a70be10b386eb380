"""TIAToolbox's networks for nuclei give here what they give there, from files of random weights."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from slidetriage.errors import ModelError
from slidetriage.models.nuclei import compare_labels
from slidetriage.models.nuclei.classical import ClassicalDetector
from slidetriage.models.nuclei.foreign_card import ForeignCard, ToolboxSettings
from slidetriage.models.nuclei.foreign_detectors import load_foreign_detector
from slidetriage.models.nuclei.foreign_hovernet import HoverNetDetector
from slidetriage.models.nuclei.foreign_kongnet import KongNetDetector, outline_centres
from slidetriage.models.nuclei.foreign_toolbox import (
    PublishedNetwork,
    build_network,
    find_published,
    list_toolbox_detectors,
    stitch,
)
from slidetriage.models.precision import Device
from tiny_detectors import write_detector

FAST = "hovernet_fast-pannuke"


def randomise(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Other weights and statistics than a fresh network of any seed has."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(1 + torch.rand(value.shape, generator=generator) / 2)
        elif name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator) / 10)
    return network.eval()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def tissue(height: int, width: int) -> np.ndarray:
    """Smooth colours with dark discs."""
    random = np.random.default_rng(5)
    image = cv2.resize(random.integers(120, 250, (9, 9, 3)).astype(np.uint8), (width, height))
    for x, y in random.integers(0, min(height, width), (30, 2)):
        cv2.circle(image, (int(x), int(y)), 12, (90, 60, 140), cv2.FILLED)
    return np.asarray(image)


def test_networks_are_those_tiatoolbox_publishes() -> None:
    names = list_toolbox_detectors()
    assert {FAST, "hovernet_original-consep", "hovernet_original-kumar"} < set(names)
    assert {"hovernet_fast-monusac", "KongNet_CoNIC_1", "KongNet_PanNuke_1"} < set(names)
    fast, original = find_published(FAST), find_published("hovernet_original-kumar")
    assert (fast.mpp, fast.input_px, fast.step_px, fast.margin_px) == (0.25, 256, 164, 46)
    assert (original.input_px, original.step_px, original.margin_px) == (270, 80, 95)
    assert fast.arguments["num_types"] == 6
    assert original.arguments["num_types"] is None
    kong = find_published("KongNet_CoNIC_1")
    assert (kong.architecture, kong.mpp, kong.input_px, kong.step_px) == ("KongNet", 0.5, 256, 248)
    with pytest.raises(ModelError, match="no network for nuclei 'resnet18-pcam'") as caught:
        find_published("resnet18-pcam")
    assert FAST in caught.value.mend


@pytest.mark.parametrize("shape", [(1, 1), (164, 164), (200, 500), (165, 30)])
@pytest.mark.parametrize(("input_px", "step_px"), [(256, 164), (271, 80), (256, 248)])
def test_patches_are_stitched_where_they_belong(
    shape: tuple[int, int], input_px: int, step_px: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    network = PublishedNetwork("HoVerNet", {}, 0.25, input_px, step_px)
    whole = stitch(image, network, lambda patch: patch.astype(np.float32))
    np.testing.assert_array_equal(whole, image)
    rim = network.margin_px
    cut = stitch(
        image, network, lambda x: x[rim : rim + step_px, rim : rim + step_px].astype(np.float32)
    )
    np.testing.assert_array_equal(cut, image)


def postprocess(network: Any, maps: np.ndarray) -> np.ndarray:
    """TIAToolbox's own labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where there is one nucleus only
        (task,) = network.postproc([maps[..., :1], maps[..., 1:]])
    return np.asarray(task["predictions"])


def assert_same_instances(found: np.ndarray, wanted: np.ndarray) -> None:
    """The same pixels in the same nuclei, whatever their numbers."""
    pairs = np.unique(np.stack([found.ravel(), wanted.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(found)) == len(np.unique(wanted))
    np.testing.assert_array_equal(found > 0, wanted > 0)


@pytest.mark.slow
@pytest.mark.parametrize("model", [FAST, "hovernet_original-kumar"])
def test_hovernet_gives_what_tiatoolbox_gives(model: str, tmp_path: Path) -> None:
    published = find_published(model)
    theirs: Any = randomise(build_network(published), 1)
    data = saved({f"module.{name}": value for name, value in theirs.state_dict().items()})
    folder = write_detector(tmp_path, "tiatoolbox", {"model": model}, data, mpp=0.25)
    detector = load_foreign_detector(folder)
    assert isinstance(detector, HoverNetDetector)
    assert detector.margin_px == published.margin_px + 10
    margin, step = published.margin_px, published.step_px
    image = tissue(step, step)
    maps = detector.compute_maps(image)
    patch = cv2.copyMakeBorder(image, *(margin,) * 4, cv2.BORDER_REFLECT_101)
    batch = torch.from_numpy(np.asarray(patch))[None]
    wanted = theirs.infer_batch(theirs, batch, device="cpu")
    np.testing.assert_allclose(maps[..., :1], wanted[0][0], atol=1e-5)
    np.testing.assert_allclose(maps[..., 1:], wanted[1][0], atol=1e-5)
    instances = detector.decode(maps)
    assert_same_instances(instances.labels, postprocess(theirs, maps))


@pytest.fixture(scope="module")
def hovernet() -> HoverNetDetector:
    """With random weights; only its post-processing is used."""
    published = find_published("hovernet_fast-monusac")
    card = ForeignCard(
        *(1, "tiatoolbox", "hover", "1", "none", "w.pth", "0" * 64, 0.25, 128),
        tiatoolbox=ToolboxSettings("hovernet_fast-monusac"),
    )
    network = build_network(published).eval()
    return HoverNetDetector(card, published, network, identity="", device=Device())


def paint_maps(discs: list[tuple[int, int, int]], side: int = 220) -> tuple[np.ndarray, np.ndarray]:
    """What HoVer-Net should give for discs (row, column, radius), and their labels."""
    y, x = np.mgrid[:side, :side]
    maps = np.zeros((side, side, 3), np.float32)
    labels = np.zeros((side, side), np.int32)
    for number, (row, column, radius) in enumerate(discs, 1):
        mine = (np.hypot(y - row, x - column) <= radius) & (labels == 0)
        labels[mine] = number
        maps[mine, 0] = 0.7 + 0.01 * number
        maps[mine, 1] = (x - column)[mine] / radius
        maps[mine, 2] = (y - row)[mine] / radius
    return maps, labels


def test_hovernet_s_maps_become_nuclei(hovernet: HoverNetDetector) -> None:
    discs = [(50, 50, 16), (50, 84, 16), (120, 60, 20), (160, 160, 14), (100, 150, 18)]
    maps, true = paint_maps(discs)
    found = hovernet.decode(maps)
    assert len(found) == len(discs)
    assert compare_labels(true, found.labels, threshold=0.8).f1 == 1
    for number in range(1, 6):
        mine = np.bincount(found.labels[true == number]).argmax()
        assert found.scores[mine - 1] == pytest.approx(0.7 + 0.01 * number, abs=0.01)
    assert_same_instances(found.labels, postprocess(hovernet._network, maps))


def test_one_nucleus_and_none(hovernet: HoverNetDetector) -> None:
    assert len(hovernet.decode(paint_maps([(100, 100, 20)])[0])) == 1
    empty = hovernet.decode(np.zeros((40, 50, 3), np.float32))
    assert (len(empty), empty.labels.shape) == (0, (40, 50))


def test_weights_of_another_network_or_scale_are_refused(tmp_path: Path) -> None:
    theirs = build_network(find_published("hovernet_fast-monusac"))
    data = saved(theirs.state_dict())
    settings = {"model": FAST}
    folder = write_detector(tmp_path / "types", "tiatoolbox", settings, data, mpp=0.25)
    with pytest.raises(ModelError, match=r"decoder\.tp.* is \(5.*, not \(6"):
        load_foreign_detector(folder)
    folder = write_detector(tmp_path / "scale", "tiatoolbox", settings, data, mpp=0.5)
    with pytest.raises(ModelError, match=r"detector\.mpp is 0\.5, but .* made for 0\.25"):
        load_foreign_detector(folder)
    settings = {"model": FAST, "part": "desc"}
    folder = write_detector(tmp_path / "part", "tiatoolbox", settings, data, mpp=0.25)
    with pytest.raises(ModelError, match="no part 'desc'"):
        load_foreign_detector(folder)
    folder = write_detector(tmp_path / "name", "tiatoolbox", {"model": "hovernet"}, data, mpp=0.25)
    with pytest.raises(ModelError, match=r"tiatoolbox\.model: .* no network for nuclei 'hovernet'"):
        load_foreign_detector(folder)


def test_torch_s_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    build_network(find_published(FAST))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.slow
def test_kongnet_gives_what_tiatoolbox_gives(tmp_path: Path) -> None:
    name = "KongNet_CoNIC_1"
    published = find_published(name)
    theirs: Any = randomise(build_network(published), 2)
    data = saved({"model": theirs.state_dict(), "epoch": 3})
    folder = write_detector(tmp_path, "tiatoolbox", {"model": name}, data, margin_px=8)
    detector = load_foreign_detector(folder)
    assert isinstance(detector, KongNetDetector)
    assert detector.margin_px == 4 + 50 + 2 * 18
    image = tissue(248, 248)
    maps = detector.compute_maps(image)
    patch = cv2.copyMakeBorder(image, 4, 4, 4, 4, cv2.BORDER_REFLECT_101)
    batch = torch.from_numpy(theirs.preproc(np.asarray(patch)))[None]
    wanted = theirs.infer_batch(theirs, batch, device="cpu")[0]
    np.testing.assert_allclose(maps, wanted[4:-4, 4:-4], atol=1e-5)
    peaks = detector.find_peaks(maps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a property's old name
        np.testing.assert_array_equal(peaks, theirs.postproc(maps).max(axis=2))
    (instances,) = detector.detect(image[None])
    assert len(instances) <= (peaks > 0).sum()
    # Random weights find what they find, so maps with known peaks as well.
    known = np.zeros((200, 200, 6), np.float32)
    for channel, (row, column) in enumerate([(30, 40), (33, 42), (100, 150), (160, 60)]):
        spot = known[row - 3 : row + 4, column - 3 : column + 4, channel]
        spot[...] = 0.6 + 0.1 * channel - 0.02 * np.hypot(*np.mgrid[-3:4, -3:4])
    rows, columns = np.nonzero(detector.find_peaks(known))
    # The first lies within 5 px of the second, which is surer.
    assert list(zip(rows, columns, strict=True)) == [(33, 42), (100, 150), (160, 60)]


def test_centres_become_outlines() -> None:
    """On haematoxylin by the watershed, beside it as a disc; touching ones part between."""
    side, radius = 240, 10
    image = np.full((side, side, 3), (235, 210, 225), np.uint8)
    y, x = np.mgrid[:side, :side]
    truth = np.zeros((side, side), np.int32)
    centres = [(40, 40), (40, 59), (100, 120), (180, 60), (150, 190)]
    for number, (row, column) in enumerate(centres, 1):
        mine = np.hypot(y - row, x - column) <= radius
        truth[mine & (truth == 0)] = number
        image[mine] = (80, 60, 140)
    peaks = np.zeros((side, side), np.float32)
    for number, (row, column) in enumerate(centres, 1):
        peaks[row, column] = 0.5 + number / 20
    peaks[60, 180] = 0.55  # on white ground
    found = outline_centres(image, peaks, ClassicalDetector(mpp=0.5, window_um=25.0))
    assert len(found) == 6
    assert compare_labels(truth, found.labels, threshold=0.7).matched == 5
    for (row, column), score in zip(centres, 0.5 + np.arange(1, 6) / 20, strict=True):
        assert found.scores[found.labels[row, column] - 1] == pytest.approx(score)
    disc = found.labels == found.labels[60, 180]
    assert disc.sum() == pytest.approx(np.pi * 9**2, rel=0.05)
    assert disc[60, 180 - 8]


def test_no_centre_no_nucleus() -> None:
    image = np.full((30, 40, 3), 200, np.uint8)
    found = outline_centres(image, np.zeros((30, 40), np.float32), ClassicalDetector())
    assert (len(found), found.labels.shape) == (0, (30, 40))
