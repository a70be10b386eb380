"""Small detectors as others would hand them over: a StarDist network that computes from pixels."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

RADII = (12.0, 7.0)
"""Semi-axes along x and y of the nuclei that the network knows."""
RAYS = 32
FIXED = {"scale": [[60, 60, 60], [240, 240, 240]]}
"""What is 60 or darker is all nucleus."""


INSTANSEG: dict[str, object] = {
    "output": "labels",
    "channel": 0,
    "normalisation": {"percentiles": [0.1, 99.9], "per_channel": True},
}


def ellipse(radii: tuple[float, float] = RADII) -> NDArray[np.float32]:
    """1 within the semi-axes around the middle of an odd square, else 0."""
    half = int(np.ceil(max(radii)))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return ((x / radii[0]) ** 2 + (y / radii[1]) ** 2 <= 1).astype(np.float32)


def stardist_onnx(
    *,
    radii: tuple[float, float] = RADII,
    grid_px: int = 1,
    last: bool = True,
    outputs: int = 1,
    rays: int = RAYS,
) -> bytes:
    """A network whose probability is the darkness within an ellipse, and its rays the ellipse's.

    `last` has channels last, as exported from TensorFlow; `outputs` is 1 or 2.
    """
    kernel = ellipse(radii)
    half = kernel.shape[0] // 2
    angles = np.arange(rays) * 2 * np.pi / rays
    lengths = 1 / np.hypot(np.cos(angles) / radii[0], np.sin(angles) / radii[1])
    constants = {
        "one": np.ones(1, np.float32),
        "look": np.repeat((kernel / kernel.sum() / 3)[None, None], 3, 1).astype(np.float32),
        "nothing": np.zeros((rays, 1, 1, 1), np.float32),
        "lengths": lengths.astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2])
        if last
        else helper.make_node("Identity", ["x"], ["first"]),
        helper.make_node("Sub", ["one", "first"], ["dark"]),
        helper.make_node(
            "Conv", ["dark", "look"], ["prob"], pads=[half] * 4, strides=[grid_px] * 2
        ),
        helper.make_node("Conv", ["prob", "nothing", "lengths"], ["dist"]),
    ]
    found = ["prob", "dist"]
    if outputs == 1:
        nodes.append(helper.make_node("Concat", found, ["both"], axis=1))
        found = ["both"]
    if last:
        for name in found:
            node = helper.make_node("Transpose", [name], [f"{name}_last"], perm=[0, 2, 3, 1])
            nodes.append(node)
        found = [f"{name}_last" for name in found]
    counts = {"prob": 1, "dist": rays, "both": 1 + rays}
    sides = ["n", "h", "w", 3] if last else ["n", 3, "h", "w"]
    values = []
    for name in found:
        count = counts[name.removesuffix("_last")]
        shape = ["n", "oh", "ow", count] if last else ["n", count, "oh", "ow"]
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return save_graph(nodes, sides, values, constants)


def save_graph(
    nodes: list[onnx.NodeProto],
    sides: list[object],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, NDArray[np.float32]],
) -> bytes:
    """An ONNX model of one float32 input "x"."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def stardist_settings(**changes: object) -> dict[str, object]:
    """Of the network above."""
    return {
        "probability_threshold": 0.6,
        "nms_threshold": 0.3,
        "grid_px": 1,
        "normalisation": FIXED,
        **changes,
    }


def save_script(module: nn.Module) -> bytes:
    """What torch.jit.save writes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as published models are made
        torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def write_detector(
    folder: Path, kind: str, settings: dict[str, object], data: bytes, **changes: object
) -> Path:
    """A folder with `detector.json` and the file that it names."""
    suffix = {"stardist": "onnx", "instanseg": "pt", "tiatoolbox": "pth"}[kind]
    card: dict[str, object] = {
        "schema_version": 1,
        "kind": kind,
        "name": f"tiny-{kind}",
        "version": "0.1",
        "licence": "CC0-1.0",
        "file": f"weights.{suffix}",
        "sha256": hashlib.sha256(data).hexdigest(),
        "mpp": 0.5,
        "margin_px": 32,
        kind: settings,
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(card["file"])).write_bytes(data)
    (folder / "detector.json").write_text(json.dumps(card))
    return folder
