"""ONNX tile models: what torch gives, through OpenVINO, with files of its own folder only."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from test_torchscript import reference
from torch import nn

from slidetriage.errors import ModelError
from slidetriage.models.foreign import TileModelCard, load_onnx
from slidetriage.models.foreign.onnx_files import find_external_files

Card = TileModelCard


def export(network: nn.Module, *, batch: int | None = None) -> bytes:
    """As torch exports it; with a batch of any size, unless one is given."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the old one, but needs less
        torch.onnx.export(
            network,
            (torch.zeros(batch or 2, 3, 32, 32),),
            buffer,
            dynamo=False,
            input_names=["tiles"],
            output_names=["logits"],
            dynamic_axes=None if batch else {"tiles": {0: "n"}, "logits": {0: "n"}},
        )
    return buffer.getvalue()


@pytest.fixture(scope="module")
def exported(classifier: nn.Module) -> bytes:
    return export(classifier)


@pytest.fixture
def onnx_path(exported: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(exported)
    return path


@pytest.mark.parametrize("batch", [None, 1, 5])
def test_scores_are_those_of_the_network(
    batch: int | None, classifier: nn.Module, tile_card: Card, tiles: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(export(classifier, batch=batch))
    model = load_onnx(path, tile_card)
    assert model.batch_tiles == (batch or 32)
    found = model.class_probabilities(tiles)
    np.testing.assert_allclose(found, reference(classifier, tiles, tile_card), atol=1e-5)
    np.testing.assert_array_equal(model.tile_scores(tiles), found[:, 2])


def test_no_tile_depends_on_others(onnx_path: Path, tile_card: Card, tiles: np.ndarray) -> None:
    """To the byte: every pass is of the same size, and what stands beside a tile is no matter."""
    model = load_onnx(onnx_path, tile_card, threads=1)
    whole = model.tile_scores(tiles)
    others = np.concatenate([tiles[:3], 255 - tiles[3:20]])
    assert model.tile_scores(others)[:3].tobytes() == whole[:3].tobytes()
    assert model.tile_scores(tiles[:3]).tobytes() == whole[:3].tobytes()
    assert load_onnx(onnx_path, tile_card).identity == model.identity


def test_threads_take_turns(onnx_path: Path, tile_card: Card, tiles: np.ndarray) -> None:
    model = load_onnx(onnx_path, tile_card, threads=1)
    wanted = model.tile_scores(tiles)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(model.tile_scores, [tiles] * 12))
    assert all(scores.tobytes() == wanted.tobytes() for scores in found)


def test_identity_is_of_file_and_card(onnx_path: Path, tile_card: Card) -> None:
    model = load_onnx(onnx_path, tile_card)
    other = load_onnx(onnx_path, dataclasses.replace(tile_card, mpp=1.0))
    assert model.identity != other.identity
    digest = hashlib.sha256(onnx_path.read_bytes()).hexdigest()
    assert load_onnx(onnx_path, tile_card, sha256=digest).identity == model.identity
    with pytest.raises(ModelError, match="another file than was pinned"):
        load_onnx(onnx_path, tile_card, sha256="0" * 64)


def split(path: Path, location: str = "weights.bin") -> Path:
    """Put the model's weights into a file of their own."""
    model = onnx.load(path)
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=location,
        size_threshold=0,
    )
    return path.with_name(location)


def test_weights_may_lie_beside_the_model(
    onnx_path: Path, classifier: nn.Module, tile_card: Card, tiles: np.ndarray
) -> None:
    whole = load_onnx(onnx_path, tile_card)
    weights = split(onnx_path)
    assert find_external_files(onnx_path.read_bytes(), onnx_path.parent, where="m") == (
        weights.resolve(),
    )
    apart = load_onnx(onnx_path, tile_card)
    np.testing.assert_allclose(
        apart.class_probabilities(tiles), reference(classifier, tiles, tile_card), atol=1e-5
    )
    changed = bytearray(weights.read_bytes())
    changed[100] ^= 1
    weights.write_bytes(changed)
    assert len({whole.identity, apart.identity, load_onnx(onnx_path, tile_card).identity}) == 3


def relocate(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


def link(path: Path) -> None:
    path.with_name("link.bin").symlink_to("/etc/passwd")
    relocate(path, "link.bin")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: relocate(path, "../outside.bin"),
        lambda path: relocate(path, "sub/../../outside.bin"),
        lambda path: relocate(path, "/etc/passwd"),
        lambda path: relocate(path, "..\\outside.bin"),
        lambda path: relocate(path, "absent.bin"),
        lambda path: relocate(path, ""),
        lambda path: relocate(path, "."),
        lambda path: relocate(path, "weights.bin\x00.txt"),
        link,
    ],
)
def test_files_elsewhere_are_refused(
    spoil: Callable[[Path], None], onnx_path: Path, tile_card: Card
) -> None:
    home = onnx_path.parent / "home"
    home.mkdir()
    moved = onnx_path.rename(home / "model.onnx")
    split(moved)
    (home.parent / "outside.bin").write_bytes((home / "weights.bin").read_bytes())
    spoil(moved)
    with pytest.raises(ModelError, match="no file inside its folder") as caught:
        load_onnx(moved, tile_card)
    assert caught.value.mend


def test_files_named_deep_inside_are_found(tmp_path: Path) -> None:
    """In a tensor that is an attribute of a node in a branch of a condition."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor)],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])],
    )
    node = helper.make_node("If", ["b"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("b", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    data = helper.make_model(graph).SerializeToString()
    with pytest.raises(ModelError, match=r"draws on '\.\./secret'"):
        find_external_files(data, tmp_path, where="model.onnx")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!doctype html>",
        b"\x80\x02cos\nsystem\n.",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x3a\x04abcd",
        b"\xff" * 40,
    ],
)
def test_what_is_no_model_is_refused(data: bytes, tmp_path: Path, tile_card: Card) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError) as caught:
        load_onnx(tmp_path / "m.onnx", tile_card)
    assert caught.value.mend


def test_random_damage_never_names_files_outside_nor_raises_otherwise(exported: bytes) -> None:
    generator = np.random.default_rng(2)
    for _ in range(300):
        damaged = bytearray(exported[:20_000])
        for place in generator.integers(0, len(damaged), 3):
            damaged[place] = generator.integers(0, 256)
        with pytest.raises(ModelError):  # cut short in any case
            find_external_files(bytes(damaged), Path("/tmp"), where="m")


def simple(shape: list[object], kind: int = TensorProto.FLOAT, outputs: int = 1) -> bytes:
    names = [f"y{i}" for i in range(outputs)]
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in names]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, shape) for name in names],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (simple(["n", 3, 64, 64]), "input of"),
        (simple(["n", 32, 32, 3]), "input of"),
        (simple(["n", 3]), "input of"),
        (simple(["n", 3, 32, 32], TensorProto.UINT8), "input of type u8"),
        (simple(["n", 3, 32, 32], outputs=2), "2 outputs"),
    ],
)
def test_models_that_do_not_fit_their_card_are_refused(
    data: bytes, message: str, tmp_path: Path, tile_card: Card
) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=message):
        load_onnx(tmp_path / "m.onnx", tile_card)
