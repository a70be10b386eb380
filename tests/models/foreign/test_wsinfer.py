"""Models of the WSInfer zoo: read strictly, scored as WSInfer does, and written so that it can."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from slidetriage.errors import ModelError, UsageError
from slidetriage.models import load_bundle
from slidetriage.models.foreign import WSInferConfig, export_wsinfer, load_wsinfer

# As the zoo publishes breast-tumor-resnet34.tcga-brca, with other sizes.
CONFIG: dict[str, Any] = {
    "spec_version": "1.0",
    "architecture": "resnet34",
    "num_classes": 3,
    "class_names": ["Other", "Stroma", "Tumor"],
    "patch_size_pixels": 48,
    "spacing_um_px": 0.25,
    "transform": [
        {"name": "Resize", "arguments": {"size": 32}},
        {"name": "ToTensor"},
        {
            "name": "Normalize",
            "arguments": {"mean": [0.7238, 0.5716, 0.6779], "std": [0.112, 0.1459, 0.1089]},
        },
    ],
}


@pytest.fixture
def folder(script_path: Path, tmp_path: Path) -> Path:
    home = tmp_path / "zoo"
    home.mkdir()
    shutil.copy(script_path, home / "torchscript_model.pt")
    (home / "config.json").write_text(json.dumps(CONFIG))
    return home


def score_as_wsinfer(folder: Path, tiles: np.ndarray) -> np.ndarray:
    """Its pipeline: Pillow images, torchvision's transforms, softmax over the classes."""
    config = json.loads((folder / "config.json").read_text())
    steps = [
        getattr(transforms, step["name"])(**step.get("arguments", {}))
        for step in config["transform"]
    ]
    batch = torch.stack([transforms.Compose(steps)(Image.fromarray(tile)) for tile in tiles])
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is the form of the zoo
        logits = torch.jit.load(folder / "torchscript_model.pt").eval()(batch)
    return logits.softmax(1).numpy()


def test_probabilities_are_those_of_wsinfer(folder: Path, tiles: np.ndarray) -> None:
    model = load_wsinfer(folder, accept_unpinned=True, positive="Stroma")
    found = model.class_probabilities(tiles)
    np.testing.assert_allclose(found, score_as_wsinfer(folder, tiles), atol=0.02)
    np.testing.assert_array_equal(model.tile_scores(tiles), found[:, 1])
    assert (model.card.mpp, model.card.tile_px, model.card.input_px) == (0.25, 48, 32)
    assert load_wsinfer(folder, accept_unpinned=True).card.positive == "Tumor"


def test_without_resizing_they_are_equal(folder: Path, tiles: np.ndarray) -> None:
    config = {**CONFIG, "transform": CONFIG["transform"][1:]}
    (folder / "config.json").write_text(json.dumps(config))
    model = load_wsinfer(folder, accept_unpinned=True)
    assert model.card.input_px == 48
    wanted = score_as_wsinfer(folder, tiles)
    np.testing.assert_allclose(model.class_probabilities(tiles), wanted, atol=1e-5)


def test_models_are_pinned(folder: Path) -> None:
    with pytest.raises(UsageError, match="is a program"):
        load_wsinfer(folder)
    digest = hashlib.sha256((folder / "torchscript_model.pt").read_bytes()).hexdigest()
    assert load_wsinfer(folder, sha256=digest).identity
    with pytest.raises(ModelError, match="another file"):
        load_wsinfer(folder, sha256="1" * 64)


def change(path: str, value: object) -> dict[str, Any]:
    config = json.loads(json.dumps(CONFIG))
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place = config
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec_version", None, "lacks 'spec_version'"),
        ("spec_version", "2.0", "is of version '2.0'"),
        ("num_classes", 2, "num_classes is 2, but 3 are named"),
        ("num_classes", True, "num_classes is True"),
        ("class_names", "abc", "class_names must be a list"),
        ("class_names", ["a", "a", "b"], "a name twice"),
        ("class_names", ["a", 1, "b"], "class_names must be a list"),
        ("patch_size_pixels", 0, "patch_size_pixels must be a whole number"),
        ("patch_size_pixels", 350.5, "patch_size_pixels must be a whole number"),
        ("spacing_um_px", "0.5", "spacing_um_px must be a number"),
        ("spacing_um_px", float("nan"), "spacing_um_px must be a number"),
        ("spacing_um_px", 0, "spacing_um_px must be a number"),
        ("transform", [], "Resize, ToTensor, Normalize in this order"),
        ("transform", {}, "transform must be a list"),
        ("transform.0.name", "CenterCrop", "in this order"),
        ("transform.1", {"name": "Resize", "arguments": {"size": 3}}, "in this order"),
        ("transform.0.arguments.size", [32, 64], "size must be a whole number"),
        ("transform.0.arguments.antialias", True, r"must have the arguments \['size'\]"),
        ("transform.0.more", 1, "other fields than name and arguments"),
        ("transform.2.arguments.mean", [0.5], "three numbers"),
        ("transform.2.arguments.std", ["a", "b", "c"], "three numbers"),
        ("transform.2.arguments.std", None, r"\['mean', 'std'\]"),
        ("transform.2.arguments.std", [0.1, 0.0, 0.1], "std"),
    ],
)
def test_wrong_configs_are_refused(path: str, value: object, message: str, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(change(path, value)))
    with pytest.raises(ModelError, match=message) as caught:
        load_wsinfer(folder, accept_unpinned=True)
    assert caught.value.mend


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"text"'])
def test_what_is_no_config_is_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError):
        load_wsinfer(folder, accept_unpinned=True)


def test_absent_files_are_named(folder: Path) -> None:
    (folder / "torchscript_model.pt").unlink()
    with pytest.raises(ModelError, match="torchscript_model"):
        load_wsinfer(folder, accept_unpinned=True)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        load_wsinfer(folder, accept_unpinned=True)


def test_a_pair_of_sizes_and_further_fields_are_taken(folder: Path) -> None:
    config = change("transform.0.arguments.size", [32, 32])
    config["model_type"] = "resnet"  # the zoo has such
    assert WSInferConfig.from_json(json.dumps(config).encode()).resize_px == 32


def test_configs_survive_a_round_trip() -> None:
    config = WSInferConfig.from_json(json.dumps(CONFIG).encode())
    assert WSInferConfig.from_json(config.to_json().encode()) == config
    assert json.loads(config.to_json()) == CONFIG


def test_our_bundle_scores_the_same_when_exported(tmp_path: Path, tiles: np.ndarray) -> None:
    bundle = load_bundle("breast-idc-scout")
    images = np.random.default_rng(5).integers(0, 256, (9, 50, 50, 3), np.uint8)
    images[:5] = tiles[:5, 0, 0][:, None, None]
    digest = export_wsinfer(tmp_path / "out", bundle)
    exported = load_wsinfer(tmp_path / "out", sha256=digest)
    assert exported.card.class_names[-1] == bundle.card.positive.name
    assert exported.card.positive == bundle.card.positive.name
    assert (exported.card.mpp, exported.card.tile_px) == (bundle.card.mpp, bundle.card.tile_px)
    np.testing.assert_allclose(exported.tile_scores(images), bundle.tile_scores(images), atol=0.005)
    np.testing.assert_allclose(
        score_as_wsinfer(tmp_path / "out", images)[:, 1], bundle.tile_scores(images), atol=0.02
    )


def test_exports_that_would_score_otherwise_are_refused(tmp_path: Path) -> None:
    bundle = load_bundle("breast-idc-scout")
    encoder = dataclasses.replace(bundle.card.encoder, interpolation="bicubic")
    card = dataclasses.replace(bundle.card, encoder=encoder)
    if card.tile_px == encoder.input_px:
        card = dataclasses.replace(card, tile_px=card.tile_px + 1)
    with pytest.raises(ModelError, match="bicubic"):
        export_wsinfer(tmp_path, dataclasses.replace(bundle, card=card))


def test_networks_without_batch_size_take_any(folder: Path, classifier: nn.Module) -> None:
    """A trace made with two tiles serves passes of 32."""
    tiles = np.full((33, 48, 48, 3), 90, np.uint8)
    scores = load_wsinfer(folder, accept_unpinned=True).tile_scores(tiles)
    assert np.ptp(scores) < 1e-6
