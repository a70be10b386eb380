"""The shipped detector: what it finds, that it is local, and what it refuses to load."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nuclei.figures import compare_all, mean_figures
from nuclei.images import LabelledImage, load_images, split_images
from nuclei.phantoms import label_phantom, plan_scene

from slidetriage.errors import ModelError, UsageError
from slidetriage.models import Device
from slidetriage.models.nuclei import NucleusDetector
from slidetriage.models.nuclei.classical import ClassicalDetector
from slidetriage.models.nuclei.learned import LearnedDetector, list_detectors, load_detector
from slidetriage.models.nuclei.map_runners import MAP_DRIFT_BOUNDS
from slidetriage.models.nuclei.matching import compare_labels
from slidetriage.models.nuclei.network import STRIDE
from slidetriage.wsi.phantom_paint import render_pixels

SHIPPED = Path(__file__).parents[3] / "models" / "detectors" / "nuclei-he"


@pytest.fixture(scope="module")
def detector() -> LearnedDetector:
    return load_detector()


@pytest.fixture(scope="module")
def painted() -> LabelledImage:
    """1,024 x 768 px of a phantom at 0.5 um/px, crowded with nuclei of every kind."""
    scene = plan_scene(3, 0.5)
    box = (1088, 1024, 1024, 768)
    return LabelledImage("", render_pixels(scene, box, 0.5), label_phantom(scene, box, 0.5), "")


def test_it_is_a_detector_and_small(detector: LearnedDetector) -> None:
    found: NucleusDetector = detector
    assert found.name == "nuclei-he-1.0.0"
    assert list_detectors() == ("nuclei-he",)
    assert (found.mpp, len(found.identity)) == (0.5, 64)
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 15 * 2**20
    training = detector.card.training
    assert not set(training.held_out) & set(training.learned_from)


def test_on_images_held_out_before_training(
    data: Callable[[str], Path], detector: LearnedDetector
) -> None:
    images = load_images(data("nuclei"))
    split = split_images(images, seed=detector.card.training.split_seed)
    assert split.held_out == detector.card.training.held_out
    held = [image for image in images if image.name in split.held_out]
    assert len(held) >= 15
    ours = mean_figures(compare_all(lambda image: detector.detect(image[None])[0], held))
    floor = mean_figures(
        compare_all(lambda image: ClassicalDetector().detect(image[None])[0], held)
    )
    assert ours["f1"] >= 0.75  # 0.760 to 0.769; 0.80 is wanted and not reached: see docs/nuclei.md
    assert ours["f1"] >= floor["f1"] + 0.08
    assert ours["pq"] > floor["pq"]
    assert ours["aji"] > floor["aji"]


def test_on_a_phantom(detector: LearnedDetector, painted: LabelledImage) -> None:
    found = detector.detect(painted.image[None])[0]
    assert compare_labels(painted.labels, found.labels).f1 >= 0.90
    assert ((found.scores > 0) & (found.scores <= 1)).all()


def test_runtimes_agree(detector: LearnedDetector, painted: LabelledImage) -> None:
    plain = load_detector(device=Device(runtime="torch", precision="float32"))
    assert plain.runtime.drift == 0
    choice = detector.runtime
    assert choice.drift <= MAP_DRIFT_BOUNDS[choice.precision]
    crop = painted.image[:256, :320][None]
    one, other = detector.detect(crop)[0], plain.detect(crop)[0]
    assert compare_labels(one.labels, other.labels, threshold=0.8).f1 > 0.97


def test_an_image_does_not_depend_on_the_batch_nor_on_the_copy(
    detector: LearnedDetector, painted: LabelledImage
) -> None:
    pair = np.stack([painted.image[:160, :176], painted.image[200:360, 300:476]])
    both, alone = detector.detect(pair), detector.detect(pair[1:])
    np.testing.assert_array_equal(both[1].labels, alone[0].labels)
    np.testing.assert_array_equal(both[1].scores, alone[0].scores)
    copy = pickle.loads(pickle.dumps(detector))
    assert copy.identity == detector.identity
    np.testing.assert_array_equal(copy.detect(pair[1:])[0].labels, alone[0].labels)


@pytest.mark.parametrize("side", [256, 512])
def test_nuclei_away_from_a_tiles_edge_are_those_of_the_whole(
    detector: LearnedDetector, painted: LabelledImage, side: int
) -> None:
    whole = detector.detect(painted.image[None])[0].labels
    left, top = 15 * STRIDE, 10 * STRIDE
    tile = painted.image[top : top + side, left : left + side]
    part = detector.detect(tile[None])[0].labels
    margin = detector.margin_px
    core = slice(margin, side - margin), slice(margin, side - margin)
    here = whole[top : top + side, left : left + side]
    inner = np.setdiff1d(np.unique(here[core]), 0)
    assert len(inner) > 3
    for number in inner:
        one = here == number
        other = part == np.bincount(part[one]).argmax()
        # Pixels of the outline that are in doubt may fall on either side.
        assert (one & other).sum() > 0.95 * (one | other).sum()


@pytest.mark.parametrize("shade", [0, 120, 255])
def test_nothing_is_found_where_nothing_is(detector: LearnedDetector, shade: int) -> None:
    found = detector.detect(np.full((2, 75, 130, 3), shade, np.uint8))
    assert [len(one) for one in found] == [0, 0]
    assert found[0].labels.shape == (75, 130)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (17, 15), (0, 9)])
def test_any_size_will_do(detector: LearnedDetector, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, *shape, 3)).astype(np.uint8)
    assert detector.detect(image)[0].labels.shape == shape


def test_what_is_no_image_is_refused(detector: LearnedDetector) -> None:
    with pytest.raises(UsageError, match="B x H x W x 3"):
        detector.detect(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(UsageError, match="float64"):
        detector.detect(np.zeros((1, 64, 64, 3)))


def test_a_detector_that_is_not_there_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nuclei-he"):
        load_detector("nothing")
    with pytest.raises(ModelError, match=r"card\.json"):
        load_detector(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(SHIPPED, broken)
    weights = broken / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match="SHA-256"):
        load_detector(broken)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mpp", -1, "impossible"),
        ("mpp", "fine", "a number"),
        ("widths", [96, 64], "a list of 3"),
        ("widths", [96, 64, 40], "is"),
        ("surprise", 1, "unknown field"),
    ],
)
def test_a_card_that_is_wrong_is_refused(
    tmp_path: Path, field: str, value: object, message: str
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(SHIPPED, wrong)
    card = json.loads((wrong / "card.json").read_text())
    (wrong / "card.json").write_text(json.dumps({**card, field: value}))
    with pytest.raises(ModelError, match=message):
        load_detector(wrong)
