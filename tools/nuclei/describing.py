"""The words and figures of the detector's card."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slidetriage.models import DataSource, WeightsCard
from slidetriage.models.nuclei.decoding import Decoding
from slidetriage.models.nuclei.detector_card import (
    DetectionFigure,
    DetectionTraining,
    DetectorCard,
)

from .images import ImageSplit
from .learning import Recipe

MARGIN_PX = 96
"""Measured on a mosaic: see docs/nuclei.md."""

USUAL_DIAMETER_PX = 26.0

_DATA = (
    DataSource(
        "2018 Data Science Bowl stage 1, stained tissue",
        "https://bbbc.broadinstitute.org/BBBC038",
        "CC0-1.0",
        (
            "Caicedo et al. 2019, Nature Methods 16:1247, doi:10.1038/s41592-019-0612-7",
            "Ljosa et al. 2012, Nature Methods 9:637, doi:10.1038/nmeth.2083",
        ),
    ),
    DataSource(
        "slidetriage phantoms, seeds 5 to 16",
        "slidetriage.wsi.plan_phantom",
        "Apache-2.0",
        (),
    ),
)

_LIMITS = (
    "Learned from 72 small images, less those held out; two of them, from one picture, are "
    "ordinary pink-and-purple H&E. On H&E of a laboratory it has not seen, look at the outlines.",
    "Outlines nuclei of 10 to 70 px in diameter; smaller ones are missed, larger ones split.",
    "Says nothing of what kind of cell a nucleus belongs to.",
    "Where nuclei overlap each pixel belongs to one of them only.",
    "Not for IHC or fluorescence; out-of-focus nuclei are missed or merged.",
)


@dataclass(frozen=True, slots=True)
class Making:
    """What the card must say of how the weights came about."""

    seed: int
    split_seed: int
    steps: tuple[int, int, int]
    """Without the validation images, with them, and with more weight on where nuclei touch."""
    recipe: Recipe
    machine: str


def compose_card(
    split: ImageSplit, making: Making, widths: tuple[int, int, int], decoding: Decoding
) -> DetectorCard:
    """The card before anything is measured."""
    recipe: dict[str, object] = {
        name: value if isinstance(value, int | float) else " to ".join(map(str, value))
        for name, value in dataclasses.asdict(making.recipe).items()
        if name != "steps"
    }
    names = ("steps_without_validation", "steps_with_it", "steps_on_touching")
    recipe |= dict(zip(names, making.steps, strict=True))
    return DetectorCard(
        schema_version=1,
        name="nuclei-he",
        version="1.0.0",
        summary="Outlines nuclei in H&E and similarly stained tissue, at 0.25 to 0.5 um/px.",
        intended_use="For Research Use Only. Not for use in diagnostic procedures.",
        licence="Apache-2.0",
        stain="H&E",
        mpp=0.5,
        mpp_range=(0.2, 0.6),
        margin_px=MARGIN_PX,
        usual_diameter_px=USUAL_DIAMETER_PX,
        widths=widths,
        decoding=decoding,
        training=DetectionTraining(
            data=_DATA,
            started_from="ImageNet weights of timm mobilenetv2_100, converted from Google "
            "Coral's MobileNetV2 (Apache-2.0)",
            seed=making.seed,
            split_seed=making.split_seed,
            recipe=recipe,
            learned_from=tuple(sorted((*split.train, *split.validation))),
            held_out=split.held_out,
            machine=making.machine,
        ),
        metrics=(),
        limits=_LIMITS,
        weights=WeightsCard("weights.safetensors", "0" * 64),
    )


def list_figures(figures: Mapping[str, Mapping[str, float]], where: str) -> list[DetectionFigure]:
    """The figures of the card, from those of `figures.by_kind`."""
    names = {"f1": "F1 at IoU 0.5", "pq": "panoptic quality", "aji": "AJI"}
    return [
        DetectionFigure(words, figures["all"][name], f"{where}, mean over images")
        for name, words in names.items()
    ]


def describe_split(split: ImageSplit, pictures: Mapping[str, Sequence[str]]) -> str:
    """How many images of how many pictures are held out."""
    held = {p for p, names in pictures.items() if set(names) & set(split.held_out)}
    return f"{len(split.held_out)} held-out images of {len(held)} pictures"
