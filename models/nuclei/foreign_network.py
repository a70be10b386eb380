"""Networks over whole images from ONNX files, by OpenVINO, and from TorchScript files, by torch."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.errors import ModelError
from slidetriage.models.compiled import ConversionError, import_openvino
from slidetriage.models.foreign.onnx_files import find_external_files
from slidetriage.models.foreign.pinned import read_pinned
from slidetriage.models.foreign.tile_models import TileModelCard
from slidetriage.models.foreign.torchscript import load_torchscript
from slidetriage.models.precision import Device

from .foreign_card import ForeignCard

Maps = NDArray[np.float32]
"""H x W x C."""

_PROBE_PX = 256
"""Side of the image by which it is told how far a network looks."""


class ImageNetwork(Protocol):
    """Computes maps of an image; threads may share it."""

    def __call__(self, x: Maps) -> list[Maps]:
        """H x W x 3, normalised -> each output, h x w x C."""
        ...


class OnnxNetwork:
    """An ONNX network, 1 x H x W x 3 or 1 x 3 x H x W float32, run by OpenVINO on the CPU.

    The file is data and runs no code of its own. It is compiled when first asked, in float32.
    """

    def __init__(self, graph: Any, where: str, device: Device) -> None:
        self._graph, self._where, self._device = graph, where, device
        self._layout = _find_layout(graph, where)
        self.reach_px = _measure_reach(graph, self._layout, where)
        """How far from a pixel of the output the network looks, by its convolutions, poolings and
        interpolations; what it pools over the whole image does not count."""
        _reshape(graph, self._layout, -1, where)
        self._axes = [_find_channels(output, self._layout, where) for output in graph.outputs]
        self._free: SimpleQueue[Any] | None = None
        self._compiling = threading.Lock()

    @classmethod
    def open(cls, path: Path, sha256: str, device: Device) -> OnnxNetwork:
        """Read a file that is pinned; raises `ModelError` where it is another or cannot be used."""
        file = read_pinned(path, sha256=sha256, accept_unpinned=False, danger="")
        if find_external_files(file.data, path.parent, where=path.name):
            raise ModelError(
                f"{path.name} keeps weights in other files, which its SHA-256 does not cover.",
                mend="Save it again with its weights inside: onnx.save(onnx.load(path), path).",
            )
        try:
            graph = import_openvino().Core().read_model(model=file.data)
        except ConversionError as error:
            raise ModelError(str(error), mend="Install openvino.") from error
        except RuntimeError as error:  # OpenVINO's errors of reading derive from it
            raise _refuse_graph(path.name, error) from error
        return cls(graph, path.name, device)

    @property
    def channels(self) -> list[int | None]:
        """Of each output; None where the file does not say."""
        sizes = [
            output.get_partial_shape()[axis]
            for output, axis in zip(self._graph.outputs, self._axes, strict=True)
        ]
        return [None if size.is_dynamic else size.get_length() for size in sizes]

    def __call__(self, x: Maps) -> list[Maps]:
        """H x W x 3 -> each output, h x w x C."""
        given = x[None] if self._layout == "NHWC" else x.transpose(2, 0, 1)[None]
        free = self._compile()
        request = free.get()
        try:
            request.infer([np.ascontiguousarray(given)], share_inputs=True)
            found = [
                np.array(request.get_output_tensor(number).data[0], np.float32)
                for number in range(len(self._axes))
            ]
        except RuntimeError as error:
            raise _refuse_graph(self._where, error) from error
        finally:
            free.put(request)
        return [
            maps if axis == 3 else np.ascontiguousarray(maps.transpose(1, 2, 0))
            for maps, axis in zip(found, self._axes, strict=True)
        ]

    def _compile(self) -> SimpleQueue[Any]:
        with self._compiling:
            if self._free is None:
                device = self._device
                settings = {
                    "INFERENCE_PRECISION_HINT": "f32",
                    "INFERENCE_NUM_THREADS": device.at_once
                    * (device.threads or torch.get_num_threads()),
                    "NUM_STREAMS": device.at_once,
                    "ENABLE_CPU_PINNING": False,
                }
                try:
                    model = import_openvino().Core().compile_model(self._graph, "CPU", settings)
                except RuntimeError as error:
                    raise _refuse_graph(self._where, error) from error
                self._free = SimpleQueue()
                for _ in range(device.at_once):
                    self._free.put(model.create_infer_request())
            return self._free


class ScriptNetwork:
    """A TorchScript network, 1 x 3 x H x W float32 to 1 x C x H x W, one image at a time.

    The file is a program; it is opened as `load_torchscript` does: pinned, and refused where it
    reaches for files by the known operators.
    """

    def __init__(self, path: Path, card: ForeignCard, device: Device) -> None:
        tile = TileModelCard(card.name, card.mpp, 1, ("nucleus",), "nucleus", "logits", 1)
        self._where = path.name
        self._run = load_torchscript(path, tile, sha256=card.sha256, device=device.name).classify
        self._turn = threading.Lock()

    def __call__(self, x: Maps) -> list[Maps]:
        """H x W x 3 -> the one output, h x w x C."""
        given = np.ascontiguousarray(x.transpose(2, 0, 1)[None])
        try:
            with self._turn:
                found = self._run(given)
        except ModelError as error:
            raise ModelError(
                f"{self._where} cannot be used for images of {x.shape[0]} x {x.shape[1]} px: "
                f"{error.what}",
                mend="It must take 1 x 3 x height x width float32 and give 1 x C x height x width.",
            ) from error
        if found.ndim != 4 or len(found) != 1:
            raise refuse_outputs(self._where, f"an output of {found.shape}", "1 x C x H x W")
        return [np.ascontiguousarray(found[0].transpose(1, 2, 0))]


def refuse_outputs(where: str, found: str, wanted: str) -> ModelError:
    """The error of a network of another kind than its card says."""
    return ModelError(
        f"{where} is no network as its card says: it has {found}.", mend=f"It must have {wanted}."
    )


def _refuse_graph(where: str, error: Exception) -> ModelError:
    lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    return ModelError(
        f"OpenVINO cannot take {where} ({lines[-1].strip()[:200]}).",
        mend="Check the file, or export it with another opset.",
    )


def _find_layout(graph: Any, where: str) -> Literal["NHWC", "NCHW"]:
    wanted = "one input, N x H x W x 3 or N x 3 x H x W float32"
    if len(graph.inputs) != 1:
        raise refuse_outputs(where, f"{len(graph.inputs)} inputs", wanted)
    shape = graph.inputs[0].get_partial_shape()
    kind = graph.inputs[0].get_element_type().get_type_name()
    if kind != "f32" or shape.rank.is_dynamic or len(shape) != 4:
        raise refuse_outputs(where, f"an input of {kind} {shape}", wanted)
    first, last = (not side.is_dynamic and side.get_length() == 3 for side in (shape[1], shape[3]))
    if first == last:
        raise refuse_outputs(where, f"an input of {shape}", wanted)
    return "NCHW" if first else "NHWC"


def _reshape(graph: Any, layout: str, side: int, where: str) -> None:
    try:
        graph.reshape([1, side, side, 3] if layout == "NHWC" else [1, 3, side, side])
    except RuntimeError as error:
        raise _refuse_graph(where, error) from error


def _find_channels(output: Any, layout: str, where: str) -> int:
    """The axis of an output's channels: the known one of 1 and 3, or that of the input."""
    shape = output.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) != 4:
        raise refuse_outputs(where, f"an output of {shape}", "outputs with four axes")
    known = [axis for axis in (1, 3) if not shape[axis].is_dynamic]
    if len(known) == 1:
        return known[0]
    return 3 if layout == "NHWC" else 1


def _measure_reach(graph: Any, layout: str, where: str) -> int:
    """Half the side of the network's receptive field, in px of the image, rounded up."""
    _reshape(graph, layout, _PROBE_PX, where)
    reach: dict[str, float] = {}
    for node in graph.get_ordered_ops():
        sources = [given.get_source_output().get_node() for given in node.inputs()]
        before = max((reach[source.get_name()] for source in sources), default=0.0)
        reach[node.get_name()] = before + _look_around(node)
    return math.ceil(max(reach.values(), default=0.0))


def _look_around(node: Any) -> float:
    """How far one layer looks to a side, in px of the image."""
    kind = node.get_type_name()
    if kind in ("Convolution", "GroupConvolution", "ConvolutionBackpropData"):
        kernel: Sequence[int] = node.input(1).get_partial_shape().get_max_shape()[-2:]
        spread = list(node.get_attributes()["dilations"])
    elif kind in ("MaxPool", "AvgPool"):
        kernel = list(node.get_attributes()["kernel"])
        spread = list(node.get_attributes().get("dilations", [1, 1]))
    elif kind == "Interpolate":
        kernel, spread = [3, 3], [1, 1]
    else:
        return 0.0
    given = node.output(0) if kind == "ConvolutionBackpropData" else node.input(0)
    side = given.get_partial_shape()
    if side.rank.is_dynamic or len(side) != 4 or side[2].is_dynamic or not side[2].get_length():
        return 0.0
    step = _PROBE_PX / min(side[2].get_length(), _PROBE_PX)
    return float(step * max((k - 1) * s for k, s in zip(kernel, spread, strict=True)) / 2)
