"""Pickled weights: only tensors, only from the file that was meant, and nothing runs."""

from __future__ import annotations

import ast
import hashlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import HOSTILE, Touch, save
from safetensors.torch import load_file

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.foreign import convert_pickled, read_pickled
from slidetriage.models.weights import read_weights

ROOT = Path(__file__).parents[3]


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.pth"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_nothing_runs(
    name: str, tmp_path: Path, canary: Path
) -> None:
    make, message = HOSTILE[name]
    path = write(tmp_path, make(canary))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for consent in ({"accept_unpinned": True}, {"sha256": digest}):
        with pytest.raises(ModelError, match=message) as caught:
            read_pickled(path, **consent)  # type: ignore[arg-type]  # one of two
        assert caught.value.mend
        assert path.name in caught.value.what
    assert not canary.exists()


def test_the_canary_sings_when_it_is_let(tmp_path: Path, canary: Path) -> None:
    """The attack is real: torch without our care runs it."""
    path = write(tmp_path, save({"w": Touch(canary)}))
    torch.load(path, weights_only=False)
    assert canary.exists()


def test_a_bomb_is_refused_before_it_takes_memory(tmp_path: Path, canary: Path) -> None:
    path = write(tmp_path, HOSTILE["zip bomb"][0](canary))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            read_pickled(path, accept_unpinned=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_neither_digest_nor_consent_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, save({"w": torch.ones(2)}))
    with pytest.raises(UsageError, match="can run any code") as caught:
        read_pickled(path)
    assert "sha256" in caught.value.mend
    with pytest.raises(UsageError, match="no SHA-256"):
        read_pickled(path, sha256="abc")


def test_another_file_than_pinned_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, save({"w": torch.ones(2)}))
    with pytest.raises(ModelError, match="another file than was pinned"):
        read_pickled(path, sha256="0" * 64)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_pickled(tmp_path / "none.pth", accept_unpinned=True)
    with pytest.raises(ModelError, match="not a regular file"):
        read_pickled(tmp_path, accept_unpinned=True)


def test_weights_are_what_torch_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    shared = torch.arange(12.0)
    wanted = dict(network.state_dict())
    nested = {"state_dict": network.state_dict(), "half": {"x": shared.half()[2:8:2]}}
    found = read_pickled(write(tmp_path, save(nested)), accept_unpinned=True)
    assert found.tensors.keys() == {f"state_dict.{k}" for k in wanted} | {"half.x"}
    for name, tensor in wanted.items():
        assert torch.equal(found.tensors[f"state_dict.{name}"], tensor)
    assert found.tensors["half.x"].tolist() == [2.0, 4.0, 6.0]
    assert found.sha256 == hashlib.sha256((tmp_path / "model.pth").read_bytes()).hexdigest()


def test_parameters_transposed_views_and_empty_tensors_are_taken(tmp_path: Path) -> None:
    table = {
        "parameter": torch.nn.Parameter(torch.ones(2, 3)),
        "transposed": torch.arange(6).reshape(2, 3).T,
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(7, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "brain": torch.ones(3, dtype=torch.bfloat16),
    }
    found = read_pickled(write(tmp_path, save(table)), accept_unpinned=True).tensors
    for name, tensor in table.items():
        assert torch.equal(found[name], tensor.detach())
        assert not found[name].requires_grad


def test_a_part_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, save({"state_dict": {"w": torch.ones(2)}, "epoch": 3}))
    with pytest.raises(ModelError, match="'epoch' is int, not a tensor") as caught:
        read_pickled(path, accept_unpinned=True)
    assert "part=" in caught.value.mend
    assert read_pickled(path, accept_unpinned=True, part="state_dict").tensors.keys() == {"w"}
    with pytest.raises(ModelError, match="no part 'model'") as caught:
        read_pickled(path, accept_unpinned=True, part="model")
    assert "state_dict, epoch" in caught.value.mend


@pytest.mark.parametrize("value", [{}, torch.ones(2), [torch.ones(2)], {"a": [torch.ones(1)]}])
def test_what_is_no_table_of_tensors_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        read_pickled(write(tmp_path, save(value)), accept_unpinned=True)


def test_names_that_run_together_are_refused(tmp_path: Path) -> None:
    value = {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}
    with pytest.raises(ModelError, match="no name of its own"):
        read_pickled(write(tmp_path, save(value)), accept_unpinned=True)


def test_published_weights_are_read(data: Callable[[str], Path]) -> None:
    """DSMIL's aggregator, saved on a GPU by the torch of 2020."""
    path = data("weights/dsmil_c16_aggregator.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    tensors = read_pickled(path, sha256=digest).tensors
    reference = torch.load(path, map_location="cpu", weights_only=True)
    assert tensors.keys() == reference.keys()
    assert all(torch.equal(tensors[name], reference[name]) for name in tensors)


def test_random_damage_is_an_error_or_harmless(tmp_path: Path) -> None:
    """Whatever single bytes are changed, nothing but ModelError comes out, or tensors."""
    whole = save({"weight": torch.arange(30.0).reshape(5, 6), "bias": torch.ones(5)})
    generator = np.random.default_rng(3)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), generator.integers(1, 4)):
            damaged[place] = generator.integers(0, 256)
        try:
            found = read_pickled(write(tmp_path, bytes(damaged)), accept_unpinned=True)
        except ModelError:
            refused += 1
        else:
            assert {tuple(v.shape) for v in found.tensors.values()} <= {(5, 6), (5,)}
    assert refused > 50


def test_conversion_keeps_every_number(tmp_path: Path) -> None:
    table = {"w": torch.arange(6.0).reshape(2, 3).T, "tied": torch.arange(6.0)}
    path = write(tmp_path, save({"model": table}))
    target = tmp_path / "model.safetensors"
    digest = convert_pickled(path, target, accept_unpinned=True, part="model")
    assert hashlib.sha256(target.read_bytes()).hexdigest() == digest
    converted = load_file(target)
    assert converted.keys() == table.keys()
    assert all(torch.equal(converted[name], table[name]) for name in table)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pth", "model.safetensors"]


def test_safetensors_with_an_absurd_header_are_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((2**60).to_bytes(8, "little") + b"{" + bytes(100))
    with pytest.raises(ModelError, match="header would be"):
        read_weights(path)


def test_no_code_of_ours_unpickles() -> None:
    """torch.load stands in one module, of pickle only the exception is used."""
    loads = []
    for folder in ("wsi", "tiling", "models", "workflows"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                where = f"{path.name}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.Import):
                    names = {alias.name.split(".")[0] for alias in node.names}
                    assert not names & _UNPICKLERS, where
                elif isinstance(node, ast.ImportFrom):
                    taken = {alias.name for alias in node.names}
                    assert (node.module or "").split(".")[0] not in _UNPICKLERS or (
                        taken == {"UnpicklingError"}
                    ), where
                elif isinstance(node, ast.keyword):
                    assert node.arg != "allow_pickle" or (
                        isinstance(node.value, ast.Constant) and node.value.value is False
                    ), where
                elif isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    assert called not in ("eval", "exec", "__import__"), where
                    if called == "torch.load":
                        loads.append(path.name)
                        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                        assert options["weights_only"] == "True", where
    assert loads == ["pickled.py"]


_UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
