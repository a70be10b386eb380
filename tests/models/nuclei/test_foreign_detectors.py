"""Other people's detectors: StarDist and InstanSeg from files, and what is refused."""

from __future__ import annotations

import io
import json
import re
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from slidetriage.errors import UsageError
from slidetriage.models.nuclei import NucleusDetector, compare_labels
from slidetriage.models.nuclei.foreign_base import normalise, number_nuclei
from slidetriage.models.nuclei.foreign_card import (
    Normalisation,
    StarDistSettings,
    identify_foreign,
    read_foreign_card,
)
from slidetriage.models.nuclei.foreign_detectors import load_foreign_detector
from slidetriage.models.nuclei.foreign_network import OnnxNetwork
from slidetriage.models.nuclei.foreign_stardist import StarDistDetector, decode_stars, suppress
from slidetriage.models.precision import Device
from tiny_detectors import (
    INSTANSEG,
    RADII,
    ellipse,
    save_graph,
    save_script,
    stardist_onnx,
    stardist_settings,
    write_detector,
)

CENTRES = [(40, 28), (40, 60), (56, 44), (88, 100), (88, 128), (132, 40), (152, 148), (20, 140)]
"""(row, column) of the nuclei in `painted`, on every grid, since the network's rays are those of
a nucleus's centre; some nearly touch."""


def paint(centres: list[tuple[int, int]], side: int = 180) -> tuple[NDArray, NDArray]:
    """Dark ellipses on a light ground, and their labels."""
    image = np.full((side, side, 3), 240, np.uint8)
    labels = np.zeros((side, side), np.int32)
    stamp = ellipse() > 0
    half = stamp.shape[0] // 2
    for number, (row, column) in enumerate(centres, 1):
        spot = np.s_[row - half : row + half + 1, column - half : column + half + 1]
        image[spot][stamp] = (60, 60, 60)
        labels[spot][stamp] = number
    return image, labels


@pytest.fixture(scope="module")
def painted() -> tuple[NDArray, NDArray]:
    return paint(CENTRES)


@pytest.fixture
def stardist(tmp_path: Path) -> Path:
    return write_detector(tmp_path / "stardist", "stardist", stardist_settings(), stardist_onnx())


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("grid_px", [1, 2, 4])
def test_stars_are_found_where_they_are_painted(
    last: bool, outputs: int, grid_px: int, painted: tuple[NDArray, NDArray], tmp_path: Path
) -> None:
    """Ellipses, so that rows, columns and the rays' directions cannot be mistaken."""
    image, true = painted
    settings = stardist_settings(grid_px=grid_px)
    data = stardist_onnx(last=last, outputs=outputs, grid_px=grid_px)
    found = load_foreign_detector(write_detector(tmp_path / "d", "stardist", settings, data))
    (instances,) = found.detect(image[None])
    assert len(instances) == len(CENTRES)
    agreement = compare_labels(true, instances.labels, threshold=0.7)
    assert agreement.f1 == 1
    assert ((instances.scores > 0.6) & (instances.scores <= 1)).all()


def test_a_detector_says_who_it_is(stardist: Path) -> None:
    found: NucleusDetector = load_foreign_detector(stardist)
    assert found.name == "tiny-stardist-0.1"
    assert (found.mpp, found.margin_px, len(found.identity)) == (0.5, 32, 64)
    assert identify_foreign(stardist) == found.identity
    card = json.loads((stardist / "detector.json").read_text())
    (stardist / "detector.json").write_text(json.dumps({**card, "margin_px": 40}))
    assert load_foreign_detector(stardist).margin_px == 40
    assert load_foreign_detector(stardist).identity != found.identity


def test_the_margin_is_at_least_how_far_the_network_looks(stardist: Path) -> None:
    card, _ = read_foreign_card(stardist)
    network = OnnxNetwork.open(stardist / card.file, card.sha256, Device())
    assert network.reach_px == RADII[0]
    changed = json.loads((stardist / "detector.json").read_text())
    (stardist / "detector.json").write_text(json.dumps({**changed, "margin_px": 0}))
    assert load_foreign_detector(stardist).margin_px == RADII[0]


def test_how_far_a_network_looks_is_measured(tmp_path: Path) -> None:
    """By changing pixels, of a network with strides, pooling and enlargement, as a U-Net has."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, stride=2),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.ConvTranspose2d(8, 8, 2, stride=2),
        nn.Conv2d(8, 1, 3, padding=1),
    ).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the old one, but needs less
        axes = {0: "n", 2: "h", 3: "w"}
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, 64, 64),),
            buffer,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": axes, "y": axes},
        )
    (tmp_path / "n.onnx").write_bytes(buffer.getvalue())
    folder = write_detector(tmp_path, "stardist", stardist_settings(), buffer.getvalue())
    card, _ = read_foreign_card(folder)
    opened = OnnxNetwork.open(folder / card.file, card.sha256, Device())
    x = np.random.default_rng(0).random((128, 128, 3), np.float32)
    (maps,) = opened(x)
    with torch.inference_mode():
        theirs = network(torch.from_numpy(x.transpose(2, 0, 1)[None]))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(maps, theirs, atol=1e-5)
    reached = 0
    for place in range(60, 68):
        changed = x.copy()
        changed[place, place] += 5
        rows, columns, _ = np.nonzero(np.abs(opened(changed)[0] - maps) > 1e-6)
        reached = max(reached, np.abs(rows - place).max(), np.abs(columns - place).max())
    assert reached <= opened.reach_px <= 2 * reached


def test_nuclei_away_from_the_margin_do_not_depend_on_the_window(stardist: Path) -> None:
    """With fixed normalisation; to the pixel."""
    detector = load_foreign_detector(stardist)
    random = np.random.default_rng(3)
    centres = [(int(r), int(c)) for r, c in random.integers(20, 300, (60, 2))]
    image = paint(centres, 320)[0]
    image = np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    (whole,) = detector.detect(image[None])
    top, left, side, margin = 48, 32, 224, detector.margin_px
    (part,) = detector.detect(image[None, top : top + side, left : left + side])
    core = np.s_[margin : side - margin, margin : side - margin]
    here = whole.labels[top : top + side, left : left + side]
    inner = np.setdiff1d(np.unique(here[core]), 0)
    assert len(inner) > 8
    for number in inner:
        other = np.bincount(part.labels[here == number]).argmax()
        np.testing.assert_array_equal((part.labels == other)[core], (here == number)[core])
        assert part.scores[other - 1] == whole.scores[number - 1]


def test_images_and_threads_do_not_matter_to_each_other(
    stardist: Path, painted: tuple[NDArray, NDArray]
) -> None:
    detector = load_foreign_detector(stardist, device=Device(threads=1, at_once=2))
    pair = np.stack([painted[0], painted[0][::-1]])
    wanted = detector.detect(pair)
    alone = detector.detect(pair[1:])
    np.testing.assert_array_equal(wanted[1].labels, alone[0].labels)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(detector.detect, [pair] * 8):
            np.testing.assert_array_equal(found[0].labels, wanted[0].labels)
            assert found[1].scores.tobytes() == wanted[1].scores.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (17, 15), (0, 9)])
def test_any_size_will_do(stardist: Path, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, *shape, 3)).astype(np.uint8)
    assert load_foreign_detector(stardist).detect(image)[0].labels.shape == shape


def test_what_is_no_image_is_refused(stardist: Path) -> None:
    detector = load_foreign_detector(stardist)
    for wrong in (np.zeros((64, 64, 3), np.uint8), np.zeros((1, 64, 64, 3))):
        with pytest.raises(UsageError, match="B x H x W x 3"):
            detector.detect(wrong)


def settings_of(overlap: str, threshold: float = 0.3) -> StarDistSettings:
    how = Normalisation(scale=((0, 0, 0), (255, 255, 255)))
    return StarDistSettings(0.5, threshold, 1, how, overlap)  # type: ignore[arg-type]  # parametrised


@pytest.mark.parametrize("overlap", ["smaller", "union"])
def test_suppression_is_that_of_every_pair(overlap: str) -> None:
    """Against the double loop over all pairs, without any shortcut."""
    random = np.random.default_rng(1)
    centres = random.uniform(0, 90, (150, 2))
    lengths = random.uniform(4, 9, (150, 1)) * random.uniform(0.6, 1.4, (150, 16))
    angles = np.arange(16) * 2 * np.pi / 16
    corners = centres[:, None] + lengths[..., None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    kept = suppress(corners, centres, lengths.min(1), settings_of(overlap))
    stars = [shapely.Polygon(star) for star in corners]
    wanted: list[int] = []
    for number, star in enumerate(stars):
        for other in wanted:
            shared = star.intersection(stars[other]).area
            union = star.area + stars[other].area - shared
            whole = min(star.area, stars[other].area) if overlap == "smaller" else union
            if shared > 0.3 * whole:
                break
        else:
            wanted.append(number)
    assert kept.tolist() == wanted
    assert 20 < len(wanted) < 150


def test_the_surer_star_keeps_the_pixels_that_both_cover() -> None:
    probability = np.zeros((60, 60), np.float32)
    rays = np.full((60, 60, 64), 10, np.float32)
    probability[30, 20], probability[30, 37] = 0.7, 0.9
    image = np.zeros((60, 60, 3), np.uint8)
    found = decode_stars(probability, rays, image=image, settings=settings_of("smaller"))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.labels[30, 28] == 1  # in both circles
    areas = np.bincount(found.labels.ravel())[1:]
    assert areas[0] == pytest.approx(np.pi * 100, rel=0.03)
    assert areas[1] < areas[0]


def test_normalisation_is_that_of_the_authors() -> None:
    image = np.random.default_rng(0).integers(20, 240, (40, 50, 3)).astype(np.uint8)
    # csbdeep.utils.normalize(x, 1, 99.8, axis=(0, 1, 2), eps=1e-20)
    low, high = np.percentile(image, [1, 99.8])
    wanted = (image - low) / (high - low + 1e-20)
    how = Normalisation(percentiles=(1, 99.8))
    np.testing.assert_allclose(normalise(image, how), wanted, rtol=1e-6)
    # instanseg.utils.utils.percentile_normalize, channel by channel
    how = Normalisation(percentiles=(0.1, 99.9), per_channel=True)
    for channel in range(3):
        low, high = np.percentile(image[..., channel], [0.1, 99.9])
        wanted = (image[..., channel] - low) / max(1e-3, high - low)
        np.testing.assert_allclose(normalise(image, how)[..., channel], wanted, atol=1e-6)
    how = Normalisation(scale=((10, 20, 30), (200, 210, 220)))
    wanted = (image - np.array([10, 20, 30])) / 190
    np.testing.assert_allclose(normalise(image, how), wanted, atol=1e-6)
    flat = normalise(np.full((4, 4, 3), 7, np.uint8), Normalisation(percentiles=(1, 99)))
    assert (flat == 0).all()


def test_labels_without_pixels_go() -> None:
    labels = np.array([[0, 3], [1, 3]], np.int32)
    found = number_nuclei(labels, np.array([0.1, 0.2, 0.3], np.float32))
    assert found.labels.tolist() == [[0, 2], [1, 2]]
    np.testing.assert_array_equal(found.scores, np.array([0.1, 0.3], np.float32))


class Blocks(nn.Module):
    """Labels each block of 16 px by its place where it is dark; cells in a second channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.clamp_max_(x, 3)  # as published InstanSeg does, in place
        dark = nn.functional.avg_pool2d(1 - x.mean(1, keepdim=True), 16) > 0.5
        place = torch.arange(dark[0, 0].numel()).view(dark[0, 0].shape)[None, None] * 7 + 1
        labels = (dark * place).repeat_interleave(16, 2).repeat_interleave(16, 3)
        return torch.cat([labels, torch.ones_like(labels)], 1).float()


def blocks() -> tuple[NDArray, NDArray]:
    image = np.full((200, 170, 3), 240, np.uint8)
    labels = np.zeros((200, 170), np.int32)
    for number, (row, column) in enumerate([(16, 32), (48, 48), (48, 80), (192, 160)], 1):
        image[row : row + 16, column : column + 16] = 50
        labels[row : row + 16, column : column + 16] = number
    return image, labels


def test_labels_of_a_script_become_nuclei(tmp_path: Path) -> None:
    folder = write_detector(tmp_path / "i", "instanseg", INSTANSEG, save_script(Blocks()))
    detector = load_foreign_detector(folder)
    image, true = blocks()
    (found,) = detector.detect(image[None])
    # The block at the edge is 16 x 16 px with its reflection, and dark all over.
    np.testing.assert_array_equal(found.labels, true)
    assert found.scores.tolist() == [1.0] * 4
    assert detector.margin_px == 64  # more than the card's
    assert detector.detect(image[None, :3, :200])[0].labels.shape == (3, 170)
    other = write_detector(
        tmp_path / "o", "instanseg", {**INSTANSEG, "channel": 1}, save_script(Blocks())
    )
    assert load_foreign_detector(other).detect(image[None])[0].labels.min() == 1


def test_labels_of_an_onnx_file_become_nuclei(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Less", ["grey", "half"], ["dark"]),
        helper.make_node("Cast", ["dark"], ["labels"], to=TensorProto.FLOAT),
    ]
    output = helper.make_tensor_value_info("labels", TensorProto.FLOAT, ["n", 1, "h", "w"])
    data = save_graph(nodes, ["n", 3, "h", "w"], [output], {"half": np.full(1, 0.5, np.float32)})
    folder = write_detector(tmp_path, "instanseg", INSTANSEG, data, file="labels.onnx")
    image, true = blocks()
    (found,) = load_foreign_detector(folder).detect(image[None])
    np.testing.assert_array_equal(found.labels, true > 0)
    assert found.scores.tolist() == [1.0]


def test_a_folder_may_lie_anywhere(stardist: Path, tmp_path: Path) -> None:
    moved = tmp_path / "other place"
    shutil.copytree(stardist, moved)
    found = load_foreign_detector(moved)
    assert isinstance(found, StarDistDetector)
    assert found.identity == load_foreign_detector(stardist).identity


def test_examples_in_the_documentation_are_right(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "cells.md").read_text()
    examples = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    kinds = []
    for example in examples:
        (tmp_path / "detector.json").write_text(example)
        kinds.append(read_foreign_card(tmp_path)[0].kind)
    assert kinds == ["stardist", "instanseg", "tiatoolbox"]
