"""Opens other people's detectors from a folder with `detector.json` and their file."""

from __future__ import annotations

from pathlib import Path

from slidetriage.models.precision import Device

from .foreign_base import ForeignDetector
from .foreign_card import read_foreign_card
from .foreign_hovernet import HoverNetDetector
from .foreign_instanseg import InstanSegDetector
from .foreign_kongnet import KongNetDetector
from .foreign_network import OnnxNetwork, ScriptNetwork
from .foreign_stardist import StarDistDetector
from .foreign_toolbox import find_published, open_network
from .instances import NucleusDetector


def load_foreign_detector(directory: Path, *, device: str | Device = "cpu") -> ForeignDetector:
    """Open the detector in a folder; nothing is downloaded.

    ONNX runs by OpenVINO on the CPU whatever the device, the others by torch on the device, all in
    float32. TorchScript and pickles are opened only as `load_torchscript` and `read_pickled` do.

    Raises `ModelError` that names the field of `detector.json` that is wrong, or says what is wrong
    with the file.
    """
    card, identity = read_foreign_card(directory)
    path, where = directory / card.file, Device.of(device)
    if card.stardist is not None:
        return StarDistDetector(card, OnnxNetwork.open(path, card.sha256, where), identity=identity)
    if card.instanseg is not None:
        network: OnnxNetwork | ScriptNetwork
        if path.suffix == ".onnx":
            network = OnnxNetwork.open(path, card.sha256, where)
        else:
            network = ScriptNetwork(path, card, where)
        return InstanSegDetector(card, network, identity=identity)
    assert card.tiatoolbox is not None  # the card has the settings of its kind
    published = find_published(card.tiatoolbox.model)
    kind = HoverNetDetector if published.architecture == "HoVerNet" else KongNetDetector
    return kind(
        card, published, open_network(card, published, path), identity=identity, device=where
    )


def _is_detector(detector: ForeignDetector) -> NucleusDetector:
    """Lets the type checker prove that it fits."""
    return detector
