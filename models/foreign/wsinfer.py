"""Tile classifiers of the WSInfer zoo: a `config.json` beside a `torchscript_model.pt`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slidetriage.errors import ModelError

from .pinned import read_whole
from .tile_models import TileModel, TileModelCard
from .torchscript import load_torchscript

MODEL_FILE = "torchscript_model.pt"
CONFIG_FILE = "config.json"
_MAX_CONFIG_BYTES = 2**20
_REQUIRED = (
    *("spec_version", "architecture", "num_classes", "class_names"),
    *("patch_size_pixels", "spacing_um_px", "transform"),
)
_ORDER = ("Resize", "ToTensor", "Normalize")
_MEND = "See the schema of model-config in github.com/SBU-BMI/wsinfer-zoo, version 1.0."


@dataclass(frozen=True, slots=True)
class WSInferConfig:
    """What `config.json` says of a model, of version 1.0."""

    architecture: str
    class_names: tuple[str, ...]
    patch_size_pixels: int
    spacing_um_px: float
    resize_px: int
    """Side of what the network takes; `patch_size_pixels` if there is no Resize."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_json(cls, text: bytes, *, where: str = CONFIG_FILE) -> WSInferConfig:
        """Read it strictly; raises `ModelError` that names the field that is wrong."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _wrong(where, f"is not valid JSON ({error})") from error
        if not isinstance(value, dict):
            raise _wrong(where, "must be a JSON object")
        for name in _REQUIRED:
            if name not in value:
                raise _wrong(where, f"lacks {name!r}")
        if value["spec_version"] != "1.0":
            raise _wrong(where, f"is of version {value['spec_version']!r}, not '1.0'")
        names = _read_class_names(value, where)
        size = _read_size(value["patch_size_pixels"], f"{where}: patch_size_pixels")
        spacing = value["spacing_um_px"]
        if not _is_number(spacing) or not 0 < spacing < 1000:
            raise _wrong(where, f"spacing_um_px must be a number above 0, not {spacing!r}")
        resize, mean, std = _read_transform(value["transform"], size, where)
        return cls(str(value["architecture"]), names, size, float(spacing), resize, mean, std)

    def to_json(self) -> str:
        """The text of `config.json`."""
        normalise = {"mean": list(self.mean), "std": list(self.std)}
        value = {
            "spec_version": "1.0",
            "architecture": self.architecture,
            "num_classes": len(self.class_names),
            "class_names": list(self.class_names),
            "patch_size_pixels": self.patch_size_pixels,
            "spacing_um_px": self.spacing_um_px,
            "transform": [
                {"name": "Resize", "arguments": {"size": self.resize_px}},
                {"name": "ToTensor"},
                {"name": "Normalize", "arguments": normalise},
            ],
        }
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"

    def as_card(self, name: str, *, positive: str | None = None) -> TileModelCard:
        """The card of the model; `positive` is the last class if it is not named."""
        return TileModelCard(
            name=name,
            mpp=self.spacing_um_px,
            tile_px=self.patch_size_pixels,
            class_names=self.class_names,
            positive=self.class_names[-1] if positive is None else positive,
            output="logits",
            input_px=self.resize_px,
            mean=self.mean,
            std=self.std,
        )


def load_wsinfer(
    folder: Path,
    *,
    sha256: str | None = None,
    accept_unpinned: bool = False,
    positive: str | None = None,
    device: str = "cpu",
) -> TileModel:
    """Open a model of the WSInfer zoo from its folder; `sha256` is of `torchscript_model.pt`.

    Tiles are resized in float32 with antialiasing; WSInfer does it with Pillow, which rounds to
    whole grey values in between, so scores may differ in the third digit.

    Raises `ModelError` that names the field of `config.json` that is wrong, and what
    `load_torchscript` raises.
    """
    text = read_whole(folder / CONFIG_FILE, limit=_MAX_CONFIG_BYTES)
    card = WSInferConfig.from_json(text).as_card(folder.name, positive=positive)
    return load_torchscript(
        folder / MODEL_FILE,
        card,
        sha256=sha256,
        accept_unpinned=accept_unpinned,
        device=device,
    )


def _read_class_names(value: dict[str, Any], where: str) -> tuple[str, ...]:
    names = value["class_names"]
    if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
        raise _wrong(where, "class_names must be a list of names")
    if len(set(names)) != len(names):
        raise _wrong(where, "class_names has a name twice")
    if type(value["num_classes"]) is not int or value["num_classes"] != len(names) or not names:
        raise _wrong(where, f"num_classes is {value['num_classes']!r}, but {len(names)} are named")
    return tuple(names)


def _read_transform(
    steps: object, patch_px: int, where: str
) -> tuple[int, tuple[float, float, float], tuple[float, float, float]]:
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise _wrong(where, "transform must be a list of steps")
    names = [step.get("name") for step in steps]
    if names != [n for n in _ORDER if n in names] or "ToTensor" not in names:
        raise _wrong(where, f"transform must be {', '.join(_ORDER)} in this order, not {names}")
    size, mean, std = patch_px, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    for step in steps:
        given = step.get("arguments", {})
        place = f"{where}: transform {step['name']}"
        allowed = {"Resize": {"size"}, "ToTensor": set(), "Normalize": {"mean", "std"}}
        if set(step) - {"name", "arguments"} or not isinstance(given, dict):
            raise _wrong(place, "has other fields than name and arguments")
        if set(given) != allowed[step["name"]]:
            raise _wrong(place, f"must have the arguments {sorted(allowed[step['name']])}")
        if step["name"] == "Resize":
            size = _read_size(given["size"], f"{place}: size")
        elif step["name"] == "Normalize":
            mean, std = _read_three(given["mean"], place), _read_three(given["std"], place)
    return size, mean, std


def _read_size(value: object, where: str) -> int:
    """A side in pixels; a pair of the same number will do, as torchvision takes both."""
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if type(value) is not int or not 1 <= value <= 4096:
        raise _wrong(where, f"must be a whole number of 1 to 4096, not {value!r}")
    return value


def _read_three(value: object, where: str) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
        raise _wrong(where, f"must have three numbers for mean and for std, not {value!r}")
    red, green, blue = value
    return float(red), float(green), float(blue)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _wrong(where: str, problem: str) -> ModelError:
    return ModelError(f"{where} {problem}.", mend=_MEND)
