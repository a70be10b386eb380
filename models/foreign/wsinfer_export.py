"""Our tile models in the form of the WSInfer zoo, which QuPath's WSInfer extension opens."""

from __future__ import annotations

import copy
import hashlib
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from slidetriage.errors import ModelError
from slidetriage.models.bundle import Bundle
from slidetriage.models.slide_head import SlideHead
from slidetriage.models.tile_network import pool

from .wsinfer import CONFIG_FILE, MODEL_FILE, WSInferConfig


def export_wsinfer(folder: Path, bundle: Bundle) -> str:
    """Write a bundle's tile scores as `config.json` and `torchscript_model.pt`.

    The network gives two logits, 0 and the bundle's own, whose softmax is the bundle's
    probability. Only tiles are scored this way; the score of a slide is not part of that form.
    Returns the SHA-256 of `torchscript_model.pt`.

    Raises `ModelError` where the encoder resizes by bicubic interpolation or stains are normalised
    first, which the form cannot say and WSInfer does not do, or where a traced network would not
    score as the bundle.
    """
    card = bundle.card
    if card.encoder.interpolation != "bilinear" and card.tile_px != card.encoder.input_px:
        raise ModelError(
            f"{card.name} resizes tiles by bicubic interpolation, which WSInfer does not.",
            mend="Export a model whose tiles need no resizing, or are resized bilinearly.",
        )
    if len(card.classes) != 2:
        raise ModelError(
            f"{card.name} has {len(card.classes)} classes, of which it scores one.",
            mend="Only bundles of two classes can be written so.",
        )
    if bundle.normalise is not None:
        raise ModelError(
            f"{card.name} normalises stains before it encodes, which WSInfer does not.",
            mend="Export a model that was trained without.",
        )
    network = _TileLogits(bundle.encoder.backbone, bundle.head, card.encoder.pooling)
    side = card.encoder.input_px
    # A copy on the CPU: tracing writes down the device, and a reader may have no GPU.
    data = _trace(copy.deepcopy(network).cpu().eval(), torch.zeros(2, 3, side, side))
    names = [item.name for item in card.classes if not item.positive]
    config = WSInferConfig(
        architecture=card.encoder.name,
        class_names=(*names, card.positive.name),
        patch_size_pixels=card.tile_px,
        spacing_um_px=card.mpp,
        resize_px=side,
        mean=card.encoder.mean,
        std=card.encoder.std,
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / MODEL_FILE, data)
    _write(folder / CONFIG_FILE, config.to_json().encode())
    return hashlib.sha256(data).hexdigest()


class _TileLogits(nn.Module):
    """B x 3 x P x P normalised -> B x 2 logits, the second of the positive class."""

    def __init__(self, backbone: nn.Module, head: SlideHead, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.class_and_mean = pooling == "class_and_mean"

    def forward(self, x: Tensor) -> Tensor:
        features = pool(self.backbone, x, "class_and_mean" if self.class_and_mean else "default")
        logit = self.head.tile_logit(features)  # B
        return torch.stack([torch.zeros_like(logit), logit], dim=1)  # B x 2


def _trace(network: nn.Module, example: Tensor) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # Deprecated since torch 2.12, but it is the form asked for; scores are compared by tests.
        warnings.filterwarnings("ignore", r".*torch\.jit\.\w+.*deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]  # torch's
        torch.jit.save(traced, buffer)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    staged = path.with_name(f".{path.name}.partial")
    staged.write_bytes(data)
    staged.replace(path)
