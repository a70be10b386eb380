"""TorchScript tile models: what torch gives, whatever the batch, and only from pinned files."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import HOSTILE, archive
from torch import nn

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.foreign import TileModelCard, load_torchscript, read_pickled

Card = TileModelCard


def reference(classifier: nn.Module, tiles: np.ndarray, card: Card) -> np.ndarray:
    """The transform and the softmax written out once more."""
    x = torch.from_numpy(tiles).permute(0, 3, 1, 2).double() / 255
    x = nn.functional.interpolate(
        x, (card.input_px, card.input_px), mode="bilinear", antialias=True
    )
    x = (x - torch.tensor(card.mean).view(1, 3, 1, 1)) / torch.tensor(card.std).view(1, 3, 1, 1)
    with torch.inference_mode():
        return classifier(x.float()).double().softmax(1).numpy()


def save(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as published models are made
        torch.jit.save(torch.jit.script(module), path)
    return path


def test_scores_are_those_of_the_network(
    script_path: Path, classifier: nn.Module, tile_card: Card, tiles: np.ndarray
) -> None:
    digest = hashlib.sha256(script_path.read_bytes()).hexdigest()
    model = load_torchscript(script_path, tile_card, sha256=digest)
    wanted = reference(classifier, tiles, tile_card)
    found = model.class_probabilities(tiles)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_array_equal(model.tile_scores(tiles), found[:, 2])
    assert wanted[:, 2].std() > 0.001
    glass = load_torchscript(
        script_path, dataclasses.replace(tile_card, positive="glass"), sha256=digest
    )
    np.testing.assert_array_equal(glass.tile_scores(tiles), found[:, 0])
    assert glass.identity != model.identity


def test_no_tile_depends_on_others(script_path: Path, tile_card: Card, tiles: np.ndarray) -> None:
    model = load_torchscript(script_path, tile_card, accept_unpinned=True)
    whole = model.tile_scores(tiles)
    alone = np.concatenate([model.tile_scores(tile[None]) for tile in tiles[:5]])
    np.testing.assert_allclose(alone, whole[:5], rtol=0, atol=1e-6)
    assert model.tile_scores(tiles[:0]).shape == (0,)


def test_one_logit_goes_through_a_sigmoid(tmp_path: Path, tile_card: Card) -> None:
    class Redness(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 0].mean((1, 2))[:, None] * 4 - 2

    card = dataclasses.replace(
        tile_card, class_names=("red",), positive="red", mean=(0, 0, 0), std=(1, 1, 1)
    )
    model = load_torchscript(save(Redness(), tmp_path / "m.pt"), card, accept_unpinned=True)
    tile = np.zeros((1, 48, 48, 3), np.uint8)
    tile[..., 0] = 153  # 0.6, so that the logit is 0.4
    assert model.tile_scores(tile)[0] == pytest.approx(1 / (1 + np.exp(-0.4)), abs=1e-6)


def test_a_program_saved_in_training_is_used_in_evaluation(tmp_path: Path, tile_card: Card) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3), nn.Dropout(0.5)).train()
    model = load_torchscript(save(network, tmp_path / "m.pt"), tile_card, accept_unpinned=True)
    tile = np.full((1, 48, 48, 3), 77, np.uint8)
    assert len({float(model.tile_scores(tile)[0]) for _ in range(4)}) == 1


def test_programs_are_opened_only_if_pinned_or_accepted(script_path: Path, tile_card: Card) -> None:
    with pytest.raises(UsageError, match="is a program") as caught:
        load_torchscript(script_path, tile_card)
    assert "sha256" in caught.value.mend
    with pytest.raises(ModelError, match="another file than was pinned"):
        load_torchscript(script_path, tile_card, sha256="0" * 64)


def test_programs_that_reach_for_files_are_refused(tmp_path: Path, tile_card: Card) -> None:
    class Reads(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.from_file("/etc/passwd", size=4, dtype=torch.uint8).sum()

    path = save(Reads(), tmp_path / "reads.pt")
    with pytest.raises(ModelError, match=r"calls 'torch\.from_file'"):
        load_torchscript(path, tile_card, accept_unpinned=True)
    with zipfile.ZipFile(path) as source:
        records = {name: source.read(name) for name in source.namelist()}
    name = next(n for n in records if b"torch.from_file(" in records[n])
    records[name] = records[name].replace(b"torch.from_file(", b"ops.image.write_file(")
    path.write_bytes(archive(records))
    with pytest.raises(ModelError, match=r"calls 'ops\.image\.write_file'"):
        load_torchscript(path, tile_card, accept_unpinned=True)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_no_programs(name: str, tmp_path: Path, tile_card: Card) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(HOSTILE[name][0](tmp_path / "canary"))
    with pytest.raises(ModelError):
        load_torchscript(path, tile_card, accept_unpinned=True)
    assert not (tmp_path / "canary").exists()


def test_damaged_programs_are_refused(script_path: Path, tile_card: Card) -> None:
    with zipfile.ZipFile(script_path) as source:
        records = {name: source.read(name) for name in source.namelist()}
    name = next(n for n in records if n.endswith(".py") and b"def forward" in records[n])
    records[name] = records[name].replace(b"def forward", b"def backward(")
    script_path.write_bytes(archive(records))
    with pytest.raises(ModelError, match="cannot be run"):
        load_torchscript(script_path, tile_card, accept_unpinned=True)


def test_a_program_is_no_table_of_weights(script_path: Path) -> None:
    with pytest.raises(ModelError, match="TorchScript module") as caught:
        read_pickled(script_path, accept_unpinned=True)
    assert "load_torchscript" in caught.value.mend


class Two(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


class Nan(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) / 0 * 0


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, 7, 11)


class Whole(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean()


class Doubtful(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("module", "changes", "message", "code"),
    [
        (Two(), {}, "gives tuple, not a tensor", "E_BUNDLE"),
        (Whole(), {}, r"gives \(\) numbers", "E_BUNDLE"),
        (Nan(), {}, "impossible numbers", "E_MODEL_NAN"),
        (Raises(), {}, "cannot be run", "E_BUNDLE"),
        (Doubtful(), {"output": "probabilities"}, "no probabilities", "E_BUNDLE"),
        (
            Doubtful(),
            {"class_names": ("a", "b"), "positive": "a"},
            r"gives \(32, 3\) numbers for 32 tiles, but its card names 2",
            "E_BUNDLE",
        ),
    ],
)
def test_networks_that_do_not_fit_are_errors(
    module: nn.Module,
    changes: dict[str, object],
    message: str,
    code: str,
    tmp_path: Path,
    tile_card: Card,
    tiles: np.ndarray,
) -> None:
    card = dataclasses.replace(tile_card, **changes)  # type: ignore[arg-type]  # parametrised
    model = load_torchscript(save(module, tmp_path / "m.pt"), card, accept_unpinned=True)
    with pytest.raises(ModelError, match=message) as caught:
        model.tile_scores(tiles)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32, 3), np.uint8),
        np.zeros((2, 48, 48, 4), np.uint8),
        np.zeros((2, 48, 48, 3), np.float32),
    ],
)
def test_other_tiles_are_refused(images: np.ndarray, script_path: Path, tile_card: Card) -> None:
    model = load_torchscript(script_path, tile_card, accept_unpinned=True)
    with pytest.raises(UsageError):
        model.tile_scores(images)


@pytest.mark.parametrize(
    "changes",
    [
        {"mpp": 0.0},
        {"tile_px": 0},
        {"input_px": 5000},
        {"class_names": ()},
        {"class_names": ("a", "a"), "positive": "a"},
        {"positive": "none"},
        {"std": (1.0, 0.0, 1.0)},
    ],
)
def test_impossible_cards_are_refused(changes: dict[str, object], tile_card: Card) -> None:
    with pytest.raises(ModelError, match="is impossible"):
        dataclasses.replace(tile_card, **changes)  # type: ignore[arg-type]  # parametrised


def test_a_table_of_weights_is_no_program(tmp_path: Path, tile_card: Card) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    (tmp_path / "m.pt").write_bytes(buffer.getvalue())
    with pytest.raises(ModelError, match="no TorchScript module") as caught:
        load_torchscript(tmp_path / "m.pt", tile_card, accept_unpinned=True)
    assert "read_pickled" in caught.value.mend
