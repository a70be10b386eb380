"""Where encoders come from: random weights, a local safetensors file, or a pinned hub revision."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import nn
from torch.overrides import TorchFunctionMode

from slidetriage.errors import ModelError

from .card import EncoderCard
from .encoder import TileEncoder
from .lean_timm import SwiGLUPacked, timm
from .precision import Device
from .weights import check_shapes, fill, read_weights

# timm acts on these itself: they would fetch or unpickle files, or change what comes out.
_REFUSED = frozenset(
    {
        "cache_dir",
        "checkpoint_path",
        "exportable",
        "features_only",
        "model_name",
        "no_jit",
        "num_classes",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "scriptable",
    }
)

# Arguments that are classes in Python are written by name in a card.
_LAYERS = {
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "SwiGLUPacked": SwiGLUPacked,
}


def random_encoder(card: EncoderCard, *, seed: int, device: str | Device = "cpu") -> TileEncoder:
    """An encoder with random weights drawn by `seed`; the generator of torch is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_backbone(card)
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return TileEncoder(backbone, card, weights_sha256=digest.hexdigest(), device=device)


def load_encoder(
    card: EncoderCard, path: Path, *, sha256: str | None = None, device: str | Device = "cpu"
) -> TileEncoder:
    """An encoder with the weights of a local safetensors file, a classifier in it left out."""
    weights = read_weights(path, sha256=sha256)
    outline = outline_backbone(card)
    shapes = {k: tuple(v.shape) for k, v in outline.state_dict().items()}
    classifier = _names_with_classifier(card) - shapes.keys()
    tensors = {k: v for k, v in weights.tensors.items() if k not in classifier}
    check_shapes(shapes, tensors, where=path.name)
    backbone = build_backbone(card)
    fill(backbone, tensors, where=path.name)
    return TileEncoder(backbone, card, weights_sha256=weights.sha256, device=device)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on the Hugging Face hub at one commit.

    >>> HubModel.parse("hf-hub:owner/name@491b427b45c94c7fb0e78b5474cc919aff584bbf").revision
    '491b427b45c94c7fb0e78b5474cc919aff584bbf'
    """

    repository: str
    revision: str
    """Forty hex digits of a commit; names of branches move, so they are refused."""

    @classmethod
    def parse(cls, text: str) -> HubModel:
        """Read `hf-hub:owner/name@commit`."""
        match = re.fullmatch(r"hf-hub:([\w.-]+/[\w.-]+)@([0-9a-f]{40})", text)
        if match is None:
            raise ModelError(
                f"{text!r} is no pinned model of the hub.",
                mend="Write hf-hub:owner/name@ and the forty hex digits of a commit.",
            )
        return cls(match[1], match[2])

    def fetch(self, name: str, *, cache: Path | None = None, offline: bool = True) -> Path:
        """Path of a file of the model in the local cache; downloads only if `offline` is false."""
        where: dict[str, Any] = {"revision": self.revision, "cache_dir": cache}
        try:
            return Path(hf_hub_download(self.repository, name, local_files_only=True, **where))
        except LocalEntryNotFoundError as error:
            if offline:
                raise ModelError(
                    f"{name} of {self.repository}@{self.revision[:12]} is not in the local cache.",
                    mend="Download it once with `hf download`, or allow downloading.",
                ) from error
        try:
            return Path(hf_hub_download(self.repository, name, **where))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise ModelError(
                f"{name} of {self.repository}@{self.revision[:12]} cannot be fetched ({error}).",
                mend="Check the network, the name and, for a gated model, your token.",
            ) from error


def hub_encoder(
    model: HubModel,
    *,
    cache: Path | None = None,
    offline: bool = True,
    card: EncoderCard | None = None,
    device: str | Device = "cpu",
) -> TileEncoder:
    """An encoder from the hub's local cache, or downloaded if `offline` is false.

    Without `card`, architecture and transform are read from the model's `config.json`.
    """
    if card is None:
        card = read_hub_config(model.fetch("config.json", cache=cache, offline=offline))
    return load_encoder(
        card, model.fetch("model.safetensors", cache=cache, offline=offline), device=device
    )


def read_hub_config(path: Path) -> EncoderCard:
    """Read timm's `config.json`: architecture, arguments and `pretrained_cfg`."""
    try:
        config = json.loads(path.read_bytes())
        pretrained = config.get("pretrained_cfg", config)
        card = EncoderCard(
            name=str(config["architecture"]).split(".")[0],
            arguments=dict(config.get("model_args") or {}),
            pooling="default",
            feature_size=int(config["num_features"]),
            input_px=int(pretrained["input_size"][-1]),
            interpolation="bilinear" if pretrained["interpolation"] == "bilinear" else "bicubic",
            mean=tuple(map(float, pretrained["mean"])),  # type: ignore[arg-type]  # checked below
            std=tuple(map(float, pretrained["std"])),  # type: ignore[arg-type]  # checked below
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        raise ModelError(
            f"{path.name} of the hub model cannot be understood ({error!r}).",
            mend="Give the encoder's card yourself.",
        ) from error
    if len(card.mean) != 3 or len(card.std) != 3:
        raise ModelError(f"{path.name}: mean and std must have three numbers.", mend="Give a card.")
    return card


def build_backbone(card: EncoderCard) -> nn.Module:
    """Build the architecture with random weights and no classifier."""
    outline = outline_backbone(card)
    found = int(outline.num_features) * (2 if card.pooling == "class_and_mean" else 1)  # type: ignore[arg-type]  # timm's
    if found != card.feature_size:
        raise ModelError(
            f"{card.name} gives {found} features, not {card.feature_size}.",
            mend="Correct encoder.feature_size.",
        )
    return _create(card)


def outline_backbone(card: EncoderCard) -> nn.Module:
    """Build the architecture without memory for weights, to learn its names and shapes."""
    with torch.device("meta"), _Undrawn():
        return _create(card)


def _create(card: EncoderCard, *, classifier: bool = False) -> nn.Module:
    refused = sorted(_REFUSED & card.arguments.keys())
    if refused:
        raise ModelError(
            f"encoder.arguments: {refused[0]!r} is not allowed.", mend="Remove it from the card."
        )
    if not timm.is_model(card.name):
        raise ModelError(
            f"timm {timm.__version__} knows no architecture {card.name!r}.",
            mend="Check encoder.name; timm.list_models() lists what there is.",
        )
    arguments: dict[str, Any] = {k: _LAYERS.get(str(v), v) for k, v in card.arguments.items()}
    if not classifier:
        arguments["num_classes"] = 0
    try:
        backbone: nn.Module = timm.create_model(card.name, pretrained=False, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ModelError(
            f"timm cannot build {card.name!r} with these arguments ({error}).",
            mend="Correct encoder.arguments.",
        ) from error
    return backbone


def _names_with_classifier(card: EncoderCard) -> frozenset[str]:
    with torch.device("meta"), _Undrawn():
        return frozenset(_create(card, classifier=True).state_dict())


class _Undrawn(TorchFunctionMode):
    """Leaves normal draws out, since without memory there is nothing to draw.

    PyTorch would import its compiler to find that out.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if getattr(func, "__name__", "") == "normal_":
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)
