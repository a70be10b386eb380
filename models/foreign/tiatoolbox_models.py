"""TIAToolbox's patch classifiers, from a local file of their published weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.weights import fill

from .pickled import read_pickled
from .tile_models import TileModel, TileModelCard
from .toolbox import import_toolbox
from .torchscript import identify

_BATCH_TILES = 32

# Classes in the order of the networks, side and scale of tiles, as TIAToolbox 2.1 publishes them.
_TASKS: dict[str, tuple[tuple[str, ...], str, int, float]] = {
    "kather100k": (
        (
            *("background", "normal colon mucosa", "debris"),
            *("colorectal adenocarcinoma epithelium", "adipose", "mucus"),
            *("smooth muscle", "cancer-associated stroma", "lymphocytes"),
        ),
        "colorectal adenocarcinoma epithelium",
        224,
        0.5,
    ),
    "pcam": (("no metastasis", "metastasis"), "metastasis", 96, 1.0),
}

_BACKBONES = (
    *("alexnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d"),
    *("resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2", "densenet121", "densenet161"),
    *("densenet169", "densenet201", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    "googlenet",
)


def list_tiatoolbox_models() -> tuple[str, ...]:
    """Names under which TIAToolbox publishes patch classifiers, sorted."""
    return tuple(sorted(f"{backbone}-{task}" for backbone in _BACKBONES for task in _TASKS))


def load_tiatoolbox(
    name: str,
    weights: Path,
    *,
    sha256: str | None = None,
    accept_unpinned: bool = False,
    device: str = "cpu",
) -> TileModel:
    """Open a patch classifier of TIAToolbox, e.g. "resnet18-kather100k", from its `.pth` file.

    Nothing is downloaded: fetch the file from TIACentre/TIAToolbox_pretrained_weights on the
    Hugging Face hub, and read its licence, which may exclude commercial use.

    Raises `UsageError` for a name it does not know, and what `read_pickled` raises.
    """
    backbone, _, task = name.partition("-")
    if backbone not in _BACKBONES or task not in _TASKS:
        raise UsageError(
            f"TIAToolbox publishes no patch classifier {name!r}.",
            mend="list_tiatoolbox_models() lists what there is; e.g. resnet18-kather100k.",
        )
    table = read_pickled(weights, sha256=sha256, accept_unpinned=accept_unpinned)
    names, positive, tile_px, mpp = _TASKS[task]
    network = _build(backbone, len(names))
    # Files saved from several GPUs at once carry a prefix.
    tensors = {re.sub(r"^module\.", "", key): value for key, value in table.tensors.items()}
    fill(network, tensors, where=weights.name)
    network.eval().requires_grad_(False).to(device)
    card = TileModelCard(
        name=name,
        mpp=mpp,
        tile_px=tile_px,
        class_names=names,
        positive=positive,
        output="probabilities",
        input_px=tile_px,
    )

    def classify(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            out: torch.Tensor = network(torch.from_numpy(x).to(device))
        return out.float().cpu().numpy()

    return TileModel(card, identify(card, table.sha256), _BATCH_TILES, classify)


def _build(backbone: str, classes: int) -> Any:
    vanilla = import_toolbox("models.architecture.vanilla")
    with torch.random.fork_rng(devices=[]):  # it draws weights, and an image to learn a shape
        return vanilla.CNNModel(backbone, num_classes=classes)
