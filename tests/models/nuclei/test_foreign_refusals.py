"""Other people's detectors that are refused: of another kind, another file, or out for harm."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from slidetriage.errors import ModelError
from slidetriage.models.nuclei.foreign_card import identify_foreign
from slidetriage.models.nuclei.foreign_detectors import load_foreign_detector
from tiny_detectors import (
    FIXED,
    INSTANSEG,
    save_graph,
    save_script,
    stardist_onnx,
    stardist_settings,
    write_detector,
)


@pytest.fixture
def stardist(tmp_path: Path) -> Path:
    return write_detector(tmp_path / "stardist", "stardist", stardist_settings(), stardist_onnx())


class Halves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x[:, :1], 0.5)


class Small(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1, ::2, ::2] * 0


class Two(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


class Nan(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] * float("nan")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Halves(), "numbers that are no labels"),
        (Small(), r"an output of \(64, 64, 1\)"),
        (Two(), "gives tuple"),
        (Nan(), "impossible numbers"),
    ],
)
def test_scripts_of_another_kind_are_refused(
    module: nn.Module, message: str, tmp_path: Path
) -> None:
    folder = write_detector(tmp_path, "instanseg", INSTANSEG, save_script(module))
    with pytest.raises(ModelError, match=message) as caught:
        load_foreign_detector(folder).detect(np.zeros((1, 20, 20, 3), np.uint8))
    assert caught.value.mend


class Reads(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/passwd", size=4, dtype=torch.uint8).sum()


def test_scripts_that_reach_for_files_are_refused(tmp_path: Path) -> None:
    folder = write_detector(tmp_path, "instanseg", INSTANSEG, save_script(Reads()))
    with pytest.raises(ModelError, match=r"calls 'torch\.from_file'"):
        load_foreign_detector(folder)


class Touch:
    """Pickles to a call of os.system."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("tiatoolbox", {"model": "hovernet_fast-pannuke"}), ("instanseg", INSTANSEG)],
)
def test_pickles_that_would_run_are_refused(
    kind: str, settings: dict[str, object], tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    torch.save({"w": Touch(tmp_path / "canary")}, buffer)
    changes = {"mpp": 0.25} if kind == "tiatoolbox" else {}
    folder = write_detector(tmp_path, kind, settings, buffer.getvalue(), **changes)
    with pytest.raises(ModelError, match=r"would import|no TorchScript module"):
        load_foreign_detector(folder)
    assert not (tmp_path / "canary").exists()


def conv(channels: list[int], *, kind: int = TensorProto.FLOAT, sides: object = None) -> bytes:
    """Outputs of 1x1 convolutions with so many channels."""
    nodes, outputs, constants = [], [], {}
    for number, count in enumerate(channels):
        constants[f"w{number}"] = np.zeros((count, 3, 1, 1), np.float32)
        nodes.append(helper.make_node("Conv", ["x", f"w{number}"], [f"y{number}"]))
        shape = ["n", count, "h", "w"]
        outputs.append(helper.make_tensor_value_info(f"y{number}", kind, shape))
    return save_graph(nodes, ["n", 3, "h", "w"] if sides is None else sides, outputs, constants)  # type: ignore[arg-type]  # a list


def flat() -> bytes:
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    return save_graph([node], ["n", 3, "h", "w"], [output], {})


def grey() -> bytes:
    node = helper.make_node("Identity", ["x"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "h", "w"])
    return save_graph([node], ["n", 1, "h", "w"], [output], {})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (conv([3]), "1 outputs of 3 channels"),
        (conv([2, 32]), "2 outputs of 2, 32 channels"),
        (conv([1, 32, 5]), "3 outputs"),
        (flat(), "an output of"),
        (grey(), "an input of"),
        (b"no model", "ONNX model"),
        (stardist_onnx()[:2000], "ONNX model|OpenVINO cannot take"),
    ],
)
def test_onnx_files_of_another_kind_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    folder = write_detector(tmp_path, "stardist", stardist_settings(), data)
    with pytest.raises(ModelError, match=message) as caught:
        load_foreign_detector(folder)
    assert caught.value.mend


def test_maps_on_another_grid_are_refused(tmp_path: Path) -> None:
    settings = stardist_settings(grid_px=2)
    folder = write_detector(tmp_path, "stardist", settings, stardist_onnx())
    with pytest.raises(ModelError, match="a grid of 2 px"):
        load_foreign_detector(folder).detect(np.zeros((1, 32, 32, 3), np.uint8))


def test_weights_in_further_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "apart.onnx"
    onnx.save_model(
        onnx.load_from_string(stardist_onnx()),
        path,
        save_as_external_data=True,
        location="more.bin",
        size_threshold=0,
    )
    data = path.read_bytes()
    folder = write_detector(tmp_path, "stardist", stardist_settings(), data)
    with pytest.raises(ModelError, match="weights in other files"):
        load_foreign_detector(folder)


def change_card(folder: Path, **changes: object) -> None:
    path = folder / "detector.json"
    card = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in card.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, r"detector\.schema_version must be one of 1"),
        ({"kind": "cellpose"}, r"detector\.kind must be one of 'stardist', 'instanseg'"),
        ({"kind": "instanseg", "file": "weights.pt"}, r"detector\.instanseg \(the settings"),
        ({"name": "Mine!"}, r"detector\.name"),
        ({"version": ""}, r"detector\.version"),
        ({"licence": " "}, r"detector\.licence"),
        ({"file": "../weights.onnx"}, r"detector\.file \(a name without folders\)"),
        ({"file": "weights.pb"}, r"ends in \.onnx"),
        ({"sha256": "absent"}, "field 'sha256' is missing"),
        ({"sha256": "ABC"}, r"detector\.sha256"),
        ({"mpp": 0}, r"detector\.mpp"),
        ({"margin_px": -1}, r"detector\.margin_px"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"stardist": stardist_settings(grid_px=3)}, r"stardist\.grid_px must be one of 1, 2, 4"),
        ({"stardist": stardist_settings(nms_threshold=2)}, r"stardist\.nms_threshold"),
        ({"stardist": stardist_settings(probability_threshold=0)}, "probability_threshold"),
        ({"stardist": stardist_settings(divisible_by=0)}, "divisible_by"),
        ({"stardist": stardist_settings(overlap="any")}, r"stardist\.overlap must be one of"),
        ({"stardist": stardist_settings(normalisation={})}, "percentiles or scale"),
        (
            {"stardist": stardist_settings(normalisation={**FIXED, "percentiles": [1, 99]})},
            "percentiles or scale",
        ),
        (
            {"stardist": stardist_settings(normalisation={"percentiles": [99, 1]})},
            r"normalisation\.percentiles \(0 to 100, rising\)",
        ),
        (
            {"stardist": stardist_settings(normalisation={"scale": [[0, 0, 9], [9, 9, 9]]})},
            r"normalisation\.scale",
        ),
    ],
)
def test_a_card_that_is_wrong_is_refused(
    changes: dict[str, object], message: str, stardist: Path
) -> None:
    change_card(stardist, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_foreign_detector(stardist)
    assert caught.value.mend


def spoil(folder: Path) -> None:
    data = bytearray((folder / "weights.onnx").read_bytes())
    data[-1] ^= 1
    (folder / "weights.onnx").write_bytes(data)


@pytest.mark.parametrize("open_it", [load_foreign_detector, identify_foreign])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil, "another file than was pinned"),
        (lambda folder: (folder / "weights.onnx").unlink(), "cannot be read"),
        (lambda folder: (folder / "detector.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "detector.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "detector.json").write_text("[]"), "must be a JSON object"),
        (lambda folder: (folder / "detector.json").write_bytes(b" " * (2**20 + 1)), "1 MiB"),
    ],
)
def test_files_that_are_wrong_are_refused(
    change: Callable[[Path], object],
    message: str,
    open_it: Callable[[Path], object],
    stardist: Path,
) -> None:
    change(stardist)
    with pytest.raises(ModelError, match=message) as caught:
        open_it(stardist)
    assert caught.value.mend
