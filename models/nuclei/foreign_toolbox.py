"""TIAToolbox's networks for nuclei, from a local file of their published weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from slidetriage.errors import ModelError
from slidetriage.models.foreign.pickled import read_pickled
from slidetriage.models.foreign.toolbox import import_toolbox
from slidetriage.models.weights import check_shapes

from .foreign_base import Image, reflect_around
from .foreign_card import ForeignCard

_ARCHITECTURES = {"hovernet.HoVerNet": "HoVerNet", "kongnet.KongNet": "KongNet"}


@dataclass(frozen=True, slots=True, eq=False)
class PublishedNetwork:
    """A network of TIAToolbox as it publishes it."""

    architecture: Literal["HoVerNet", "KongNet"]
    arguments: dict[str, Any]
    """Of its class."""
    mpp: float
    input_px: int
    """Side of the patches that it takes."""
    step_px: int
    """Side of the middle of a patch that counts; patches lie so far apart."""

    @property
    def margin_px(self) -> int:
        """What a patch sees around its middle."""
        return (self.input_px - self.step_px) // 2


def list_toolbox_detectors() -> tuple[str, ...]:
    """Names under which TIAToolbox publishes networks for nuclei, sorted."""
    return tuple(
        sorted(k for k, v in _published().items() if v["architecture"]["class"] in _ARCHITECTURES)
    )


def find_published(name: str) -> PublishedNetwork:
    """Look a network up in TIAToolbox's own table; nothing is downloaded.

    Raises `ModelError` for a name that is not there, or of another architecture.
    """
    info = _published().get(name)
    if info is None or info["architecture"]["class"] not in _ARCHITECTURES:
        raise ModelError(
            f"detector.tiatoolbox.model: TIAToolbox publishes no network for nuclei {name!r}.",
            mend=f"There are: {', '.join(list_toolbox_detectors())}.",
        )
    settings = info["ioconfig"]["kwargs"]
    hovernet = info["architecture"]["class"] == "hovernet.HoVerNet"
    return PublishedNetwork(
        "HoVerNet" if hovernet else "KongNet",
        dict(info["architecture"]["kwargs"]),
        float(settings["input_resolutions"][0]["resolution"]),
        int(settings["patch_input_shape"][0]),
        int(settings["patch_output_shape" if hovernet else "stride_shape"][0]),
    )


def open_network(card: ForeignCard, published: PublishedNetwork, path: Path) -> Any:
    """Build the network and fill it from the file, on the CPU.

    Raises `ModelError` where the scale is another one, and what `read_pickled` raises.
    """
    assert card.tiatoolbox is not None  # the card has the settings of its kind
    if abs(card.mpp - published.mpp) > 0.01 * published.mpp:
        raise ModelError(
            f"detector.mpp is {card.mpp:g}, but {card.tiatoolbox.model} is made for "
            f"{published.mpp:g} um/px.",
            mend=f"Write {published.mpp:g}.",
        )
    usual = "model" if published.architecture == "KongNet" else None
    table = read_pickled(path, sha256=card.sha256, part=card.tiatoolbox.part or usual)
    network = build_network(published)
    # Files saved from several GPUs at once carry a prefix.
    tensors = {re.sub(r"^module\.", "", key): value for key, value in table.tensors.items()}
    wanted = network.state_dict()
    check_shapes({k: tuple(v.shape) for k, v in wanted.items()}, tensors, where=path.name)
    # KongNet's own load_state_dict takes the dict around its weights.
    nn.Module.load_state_dict(network, {k: v.to(wanted[k].dtype) for k, v in tensors.items()})
    return network.eval().requires_grad_(False)


def build_network(published: PublishedNetwork) -> Any:
    """The network with random weights."""
    name = published.architecture
    module = import_toolbox(f"models.architecture.{name.lower()}")
    with torch.random.fork_rng(devices=[]):
        return getattr(module, name)(**published.arguments)


def stitch(
    image: Image,
    published: PublishedNetwork,
    run: Callable[[Image], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """H x W x C maps of an image, patch by patch; what lies outside the image is its reflection.

    `run` takes a patch of input_px and gives maps of step_px or more, of which the middle counts.
    """
    height, width = image.shape[:2]
    step, margin = published.step_px, published.margin_px
    rows, columns = -(-height // step), -(-width // step)
    after = published.input_px - step - margin
    padded = reflect_around(
        image, margin, rows * step - height + after, columns * step - width + after
    )
    bands = []
    for top in range(0, rows * step, step):
        band = []
        for left in range(0, columns * step, step):
            side = published.input_px
            maps = run(np.ascontiguousarray(padded[top : top + side, left : left + side]))
            rim = (maps.shape[0] - step) // 2
            band.append(maps[rim : rim + step, rim : rim + step])
        bands.append(np.concatenate(band, axis=1))
    return np.concatenate(bands)[:height, :width]


def exact() -> Any:
    """On a GPU, neither TF32 nor algorithms chosen by the clock."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def _published() -> dict[str, Any]:
    found: dict[str, Any] = import_toolbox("models.architecture").PRETRAINED_INFO
    return found
