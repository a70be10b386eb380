"""TIAToolbox's patch classifiers give here what they give there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.foreign import list_tiatoolbox_models, load_tiatoolbox
from slidetriage.models.foreign.tiatoolbox_models import _TASKS
from slidetriage.models.foreign.toolbox import import_toolbox


@pytest.fixture(scope="module")
def toolbox() -> Any:
    return import_toolbox("models.architecture.vanilla")


def save(network: torch.nn.Module, path: Path, prefix: str = "") -> str:
    torch.save({f"{prefix}{k}": v for k, v in network.state_dict().items()}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("prefix", "task"), [("", "pcam"), ("module.", "kather100k")])
def test_probabilities_are_those_of_tiatoolbox(
    prefix: str, task: str, toolbox: Any, tmp_path: Path
) -> None:
    torch.manual_seed(6)
    classes = {"pcam": 2, "kather100k": 9}[task]
    network = toolbox.CNNModel("resnet18", num_classes=classes)
    digest = save(network, tmp_path / "w.pth", prefix)
    model = load_tiatoolbox(f"resnet18-{task}", tmp_path / "w.pth", sha256=digest)
    side = model.card.tile_px
    tiles = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    prepare = import_toolbox("models.dataset.classification").predefined_preproc_func(task)
    batch = torch.stack([torch.as_tensor(np.asarray(prepare(tile))) for tile in tiles])
    if batch.shape[1] == 3:  # the function gives channels first in some versions
        batch = batch.permute(0, 2, 3, 1)
    wanted = network.infer_batch(network, batch, device="cpu")
    found = model.class_probabilities(tiles)
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    column = model.card.class_names.index(model.card.positive)
    np.testing.assert_array_equal(model.tile_scores(tiles), found[:, column])


def test_names_sizes_and_scales_are_those_tiatoolbox_publishes(toolbox: Any) -> None:
    path = Path(toolbox.__file__).parents[2] / "data" / "pretrained_model.yaml"
    published = yaml.safe_load(path.read_text())
    theirs = {k for k in published if k.endswith(("-kather100k", "-pcam"))}
    assert theirs == set(list_tiatoolbox_models())
    for name in theirs:
        names, positive, tile_px, mpp = _TASKS[name.split("-")[1]]
        entry = published[name]
        settings = entry["ioconfig"]["kwargs"]
        assert entry["architecture"]["kwargs"]["num_classes"] == len(names)
        assert settings["patch_input_shape"] == [tile_px, tile_px]
        assert settings["input_resolutions"] == [{"resolution": mpp, "units": "mpp"}]
        assert positive in names


def test_torch_s_generator_is_left_alone(toolbox: Any, tmp_path: Path) -> None:
    network = toolbox.CNNModel("resnet18", num_classes=2)
    save(network, tmp_path / "w.pth")
    before = torch.random.get_rng_state()
    load_tiatoolbox("resnet18-pcam", tmp_path / "w.pth", accept_unpinned=True)
    assert torch.equal(before, torch.random.get_rng_state())


def test_wrong_names_and_weights_are_refused(toolbox: Any, tmp_path: Path) -> None:
    network = toolbox.CNNModel("resnet18", num_classes=2)
    digest = save(network, tmp_path / "w.pth")
    with pytest.raises(UsageError, match="no patch classifier 'resnet19-pcam'"):
        load_tiatoolbox("resnet19-pcam", tmp_path / "w.pth", sha256=digest)
    with pytest.raises(UsageError, match="can run any code"):
        load_tiatoolbox("resnet18-pcam", tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"'classifier\.weight' is \(2, 512\), not \(9, 512\)"):
        load_tiatoolbox("resnet18-kather100k", tmp_path / "w.pth", sha256=digest)
    with pytest.raises(ModelError, match="missing from the weights"):
        load_tiatoolbox("resnet34-pcam", tmp_path / "w.pth", sha256=digest)
