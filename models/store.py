"""Bundles on disk: a directory with card.json and weights.safetensors, checked before use."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from slidetriage.errors import ModelError

from .attention import GatedAttentionHead
from .backbones import build_backbone, outline_backbone
from .bundle import Bundle
from .card import Card, EncoderCard, HeadCard, WeightsCard, read_card
from .encoder import TileEncoder
from .precision import Device
from .weights import check_shapes, fill, read_weights

_SHIPPED = Path(__file__).with_name("bundles")


def list_bundles() -> tuple[str, ...]:
    """Names of the bundles that come with slidetriage, sorted."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob("*/card.json")))


def load_bundle(name_or_path: str | Path, *, device: str | Device = "cpu") -> Bundle:
    """Load a bundle by the name of a shipped one or by its directory.

    Card, SHA-256, safetensors header and every tensor's shape are checked before anything is
    built from the weights. Raises `ModelError` that says what is wrong and how to mend it.

    >>> load_bundle("breast-idc-scout").card.tile_px
    50
    """
    directory = _find(name_or_path)
    card, text = read_card(directory / "card.json")
    weights = read_weights(directory / card.weights.file, sha256=card.weights.sha256)
    encoder_tensors = _part(weights.tensors, "encoder.")
    head_tensors = _part(weights.tensors, "head.")
    if len(encoder_tensors) + len(head_tensors) != len(weights.tensors):
        raise ModelError(
            f"{card.weights.file} holds tensors of neither encoder nor head.",
            mend="Save the bundle with slidetriage.models.save_bundle.",
        )
    outline = outline_backbone(card.encoder)
    check_shapes(_shapes(outline), encoder_tensors, where="encoder")
    with torch.device("meta"):
        check_shapes(_shapes(_build_head(card.encoder, card.head)), head_tensors, where="head")
    backbone = build_backbone(card.encoder)
    fill(backbone, encoder_tensors, where="encoder")
    head = _build_head(card.encoder, card.head)
    fill(head, head_tensors, where="head")
    encoder = TileEncoder(backbone, card.encoder, weights_sha256=weights.sha256, device=device)
    identity = hashlib.sha256(hashlib.sha256(text).digest() + bytes.fromhex(weights.sha256))
    head.eval().requires_grad_(False).to(encoder.device)
    return Bundle(card, encoder, head, identity.hexdigest())


def save_bundle(
    directory: Path, card: Card, *, backbone: nn.Module, head: GatedAttentionHead
) -> Card:
    """Write card and weights to `directory`, and return the card with the weights' SHA-256.

    A float tensor is stored as float16 if that loses nothing, otherwise as float32.
    """
    tensors = {f"encoder.{k}": _shrink(v) for k, v in backbone.state_dict().items()}
    tensors |= {f"head.{k}": _shrink(v) for k, v in head.state_dict().items()}
    data = safetensors.torch.save(tensors)
    card = dataclasses.replace(
        card, weights=WeightsCard("weights.safetensors", hashlib.sha256(data).hexdigest())
    )
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / card.weights.file, data)
    _write(directory / "card.json", card.to_json().encode())
    return card


def _find(name_or_path: str | Path) -> Path:
    if isinstance(name_or_path, str) and name_or_path in list_bundles():
        return _SHIPPED / name_or_path
    directory = Path(name_or_path)
    if not directory.is_dir():
        raise ModelError(
            f"There is no bundle {str(name_or_path)!r}.",
            mend=f"Give a directory, or one of: {', '.join(list_bundles())}.",
        )
    return directory


def _build_head(encoder: EncoderCard, head: HeadCard) -> GatedAttentionHead:
    return GatedAttentionHead(encoder.feature_size, hidden=head.hidden, attention=head.attention)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _shrink(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.is_floating_point():
        half = tensor.half()
        return half if torch.equal(half.float(), tensor.float()) else tensor.float()
    return tensor


def _write(path: Path, data: bytes) -> None:
    staged = path.with_name(f".{path.name}.partial")
    staged.write_bytes(data)
    os.replace(staged, path)
