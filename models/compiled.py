"""A tile network compiled by OpenVINO for the CPU; nothing else in slidetriage imports OpenVINO."""

from __future__ import annotations

import hashlib
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .eager import split_batches
from .precision import NumberFormat
from .tile_network import TileNetwork

Graph = TypeVar("Graph")

_MOST_KEPT = 4
"""Converted networks that a process keeps; it rarely has more than a model and a detector."""

_converted: dict[str, Any] = {}
_converting = threading.Lock()

_HINTS: dict[NumberFormat, str] = {"float32": "f32", "bfloat16": "bf16"}


class ConversionError(Exception):
    """OpenVINO is absent, or cannot take this network."""


class CompiledNetwork:
    """Runs a tile network with OpenVINO; `Conversion.compile` makes one."""

    def __init__(self, requests: list[Any], *, batch_tiles: int) -> None:
        self.batch_tiles = batch_tiles
        self._requests = requests
        for before, after in pairwise(requests):
            after.set_input_tensor(0, before.get_output_tensor(0))

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """N x H x W x 3 uint8 -> N x D."""
        features = []
        for rows, batch in split_batches(images, self.batch_tiles):
            self._requests[0].infer([batch], share_inputs=True, share_outputs=True)
            for request in self._requests[1:]:
                request.infer(share_outputs=True)
            found = self._requests[-1].get_output_tensor(0).data  # B x D; the next pass overwrites
            features.append(np.array(found[: rows.stop - rows.start], np.float32))
        return np.concatenate(features)


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """A tile network as OpenVINO's graphs, with the weights it had, for tiles of one size."""

    stages: tuple[Any, ...]
    """From bytes to features at once, or resizing and the rest apart."""
    batch_tiles: int
    """Tiles per pass, part of the graphs."""

    @classmethod
    def of(
        cls, network: TileNetwork, example: NDArray[np.uint8], *, batch_tiles: int
    ) -> Conversion:
        """Convert a network that lies on the CPU, traced with two or more tiles, n x H x W x 3.

        Raises `ConversionError`.
        """
        images = torch.from_numpy(example[:2])
        size = network.transform.input_px
        if example.shape[1:3] == (size, size):
            stages: tuple[Any, ...] = (_convert(network, images, batch_tiles),)
        else:
            # Told to compute in bfloat16, OpenVINO would resize in it, which costs more accuracy
            # than the network itself; normalising before the first layer does no harm.
            with torch.no_grad():
                x = network.prepare_images(images)
            stages = (
                _convert(network.prepare_images, images, batch_tiles),
                _convert(network.extract_features, x, batch_tiles),
            )
        return cls(stages, batch_tiles)

    def compile(
        self, precision: NumberFormat, *, threads: int, at_once: int = 1
    ) -> tuple[CompiledNetwork, ...]:
        """Compile for this processor; resizing stays in float32. Raises `ConversionError`.

        There are `at_once` networks over the same weights, for as many passes at a time, each on
        `threads` threads.
        """
        core = import_openvino().Core()
        *first, last = self.stages
        models = []
        for stage, hint in [(s, "f32") for s in first] + [(last, _HINTS[precision])]:
            settings = {
                "PERFORMANCE_HINT": "LATENCY" if at_once == 1 else "THROUGHPUT",
                "NUM_STREAMS": at_once,
                "INFERENCE_NUM_THREADS": threads * at_once,
                # Each of several worker processes would pin its threads to the same cores.
                "ENABLE_CPU_PINNING": False,
                "INFERENCE_PRECISION_HINT": hint,
            }
            try:
                models.append(core.compile_model(stage, "CPU", settings))
            except RuntimeError as error:
                raise _refuse(error) from error
        return tuple(
            CompiledNetwork(
                [model.create_infer_request() for model in models], batch_tiles=self.batch_tiles
            )
            for _ in range(at_once)
        )


def convert_once(name: str, network: nn.Module, convert: Callable[[], Graph]) -> Graph:
    """What `convert` makes of a network, made once in a process for equal networks.

    Torch never frees what it has traced, weights and all, so a process that makes one run after the
    other must not trace the same network again; and it takes a second.

    Parameters
    ----------
    name
        Says what the network's modules and weights do not, and how it is converted.
    """
    digest = hashlib.sha256(f"{name}\n{network}".encode())
    for key, tensor in [*network.named_parameters(), *network.named_buffers()]:
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)
    with _converting:
        found = _converted.pop(digest.hexdigest(), None)
        if found is None:
            found = convert()
        _converted[digest.hexdigest()] = found  # the last one used comes last
        while len(_converted) > _MOST_KEPT:
            del _converted[next(iter(_converted))]
    graph: Graph = found
    return graph


def import_openvino() -> Any:
    """OpenVINO without its telemetry, or `ConversionError`.

    OpenVINO reports conversions over the network by `openvino_telemetry`; where that cannot be
    imported it uses a stub of its own that reports nothing. Patients' data are near, so here it
    cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is Python's way to forbid an import; typeshed does not know
    try:
        import openvino  # type: ignore[import-untyped,unused-ignore]  # stubs without py.typed
        import openvino.frontend  # type: ignore[import-untyped,unused-ignore]  # the same
    except ImportError as error:
        raise ConversionError(f"OpenVINO cannot be imported ({error})") from error
    return openvino


def _convert(function: Callable[[Tensor], Tensor], example: Tensor, batch_tiles: int) -> Any:
    openvino = import_openvino()
    try:
        return openvino.convert_model(
            _trace(function, example),
            example_input=example,
            input=[(batch_tiles, *example.shape[1:])],
        )
    except (
        # What tracing raises is up to the network, what conversion raises to OpenVINO.
        *(ArithmeticError, AssertionError, AttributeError, LookupError),
        *(RuntimeError, TypeError, ValueError),
        *(openvino.frontend.GeneralFailure, openvino.frontend.InitializationFailure),
        *(openvino.frontend.NotImplementedFailure, openvino.frontend.OpConversionFailure),
        openvino.frontend.OpValidationFailure,
    ) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise _refuse(error) from error


@torch.no_grad()
def _trace(function: Callable[[Tensor], Tensor], example: Tensor) -> Any:
    """The function as TorchScript, its weights as constants.

    Traced as a module, or by OpenVINO itself, a network takes two to five times as long.
    """
    with warnings.catch_warnings():
        # What tracing bakes in is fixed here, and the features are compared with torch's.
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)
        # Deprecated in torch 2.12, but it is what OpenVINO converts fastest.
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        return torch.jit.trace(lambda x: function(x), example, check_trace=False)  # type: ignore[no-untyped-call]  # torch's


def _refuse(error: Exception) -> ConversionError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ConversionError(f"OpenVINO cannot take the network ({lines[0]})")
