"""ONNX tile models, run by OpenVINO in float32; the file is data and runs no code of its own."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.errors import ModelError
from slidetriage.models.compiled import ConversionError, import_openvino

from .onnx_files import find_external_files
from .pinned import read_whole
from .tile_models import TileModel, TileModelCard
from .torchscript import identify

_BATCH_TILES = 32
_MAX_MODEL_BYTES = 2 * 2**30  # protobuf's own limit


def load_onnx(
    path: Path, card: TileModelCard, *, sha256: str | None = None, threads: int | None = None
) -> TileModel:
    """Open an ONNX tile model, N x 3 x P x P float32 to N x K, on the CPU.

    It is compiled for batches of one size, 32 or what the model is made for. Weights in further
    files are taken from the model's folder only, and count in its identity.

    Raises `ModelError` for a file other than `sha256` says, a damaged model, one of other inputs
    or outputs, and where OpenVINO cannot take it.
    """
    data = read_whole(path, limit=_MAX_MODEL_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ModelError(
            f"{path.name} is another file than was pinned: its SHA-256 is {digest[:12]}....",
            mend="Fetch it again, or look into where the other file came from.",
        )
    further = find_external_files(data, path.parent, where=path.name)
    digests = [hashlib.sha256(read_whole(file)).hexdigest() for file in further]
    request, batch_tiles = _compile(path if further else data, card, path.name, threads)

    turn = threading.Lock()

    def classify(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with turn:  # one pass at a time; the next one overwrites the output
            request.infer([x], share_inputs=True, share_outputs=True)
            return np.array(request.get_output_tensor(0).data, np.float32)

    return TileModel(card, identify(card, digest, *digests), batch_tiles, classify)


def _compile(
    model: Path | bytes, card: TileModelCard, where: str, threads: int | None
) -> tuple[Any, int]:
    try:
        openvino = import_openvino()
    except ConversionError as error:
        raise ModelError(str(error), mend="Install openvino.") from error
    core = openvino.Core()
    try:
        # Bytes are what was hashed; a path is needed for OpenVINO to find further files.
        graph = core.read_model(model=str(model) if isinstance(model, Path) else model)
        batch_tiles = _check_input(graph, card, where)
        graph.reshape([batch_tiles, 3, card.input_px, card.input_px])
        compiled = core.compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,
            },
        )
    except RuntimeError as error:  # OpenVINO's errors of reading derive from it
        lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason given"]
        raise ModelError(
            f"OpenVINO cannot take {where} ({lines[-1].strip()[:200]}).",
            mend="Check the file, or export it with another opset.",
        ) from error
    return compiled.create_infer_request(), batch_tiles


def _check_input(graph: Any, card: TileModelCard, where: str) -> int:
    """Tiles per pass that the model takes."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise _refuse(where, f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
    shape = graph.inputs[0].get_partial_shape()
    kind = graph.inputs[0].get_element_type().get_type_name()
    if kind != "f32":
        raise _refuse(where, f"input of type {kind}")
    if shape.rank.is_dynamic:
        return _BATCH_TILES
    sides = [None if side.is_dynamic else side.get_length() for side in shape]
    wanted = [sides[0] if sides else None, 3, card.input_px, card.input_px]
    if len(sides) != 4 or any(s not in (None, w) for s, w in zip(sides, wanted, strict=True)):
        raise _refuse(where, f"input of {shape}, not of N x 3 x {card.input_px} x {card.input_px}")
    return sides[0] or _BATCH_TILES


def _refuse(where: str, found: str) -> ModelError:
    return ModelError(
        f"{where} is no tile model as its card says: it has {found}.",
        mend="It must take N x 3 x input_px x input_px float32 and give N x classes.",
    )
