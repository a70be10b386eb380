"""The words of the card: what is known of the data, the recipe and the limits."""

from __future__ import annotations

from dataclasses import asdict

from breast_idc.bag_stage import BagRecipe
from breast_idc.tile_stage import TileRecipe
from slidetriage.models import ClassCard, DataSource, EncoderCard

NAME = "breast-idc-scout"
SUMMARY = (
    "Low-power scout for invasive ductal carcinoma in breast H&E: scores tiles of 200 um and, by "
    "gated attention, the slide."
)
INTENDED_USE = "For Research Use Only. Not for use in diagnostic procedures."
CLASSES = (
    ClassCard("Non-IDC", False, "Other", (160, 160, 160)),
    ClassCard("Invasive ductal carcinoma", True, "Tumor", (200, 0, 0)),
)
DATA = DataSource(
    name="Breast Histopathology Images, one tile in 25, 207 patients",
    source="https://www.kaggle.com/datasets/paultimothymooney/breast-histopathology-images",
    licence="CC0-1.0",
    citations=(
        "Cruz-Roa A, et al. Automatic detection of invasive ductal carcinoma in whole slide images "
        "with convolutional neural networks. Proc SPIE 9041, Medical Imaging 2014: Digital "
        "Pathology, 904103.",
        "Janowczyk A, Madabhushi A. Deep learning for digital pathology image analysis: A "
        "comprehensive tutorial with selected use cases. J Pathol Inform 2016;7:29.",
    ),
)
STARTED_FROM = (
    "timm mobilenetv2_100 with ImageNet weights converted from Google Coral's MobileNetV2 "
    "(Apache-2.0)"
)
LIMITS = (
    "Fitted to tiles of 131 patients of one public collection, scanned at 40x and reduced to "
    "4 um/px; other laboratories' slides may score differently.",
    "The labels outline regions of IDC by hand at low power: some tiles inside are fat or stroma, "
    "and many of the highest-scored tiles outside are cellular and look like tumour.",
    "In situ carcinoma, lobular carcinoma, other tumours, other organs, lymph nodes, frozen "
    "sections and stains other than H&E were not studied; scores there mean nothing.",
    "At 4 um/px nuclear detail is not visible; dense cellular tissue of any kind can score high.",
    "The slide score was trained and measured on bags put together from a patient's real tiles "
    "with the share of tumour varied, half of them without any, not on a series of whole slides: "
    "where tumour is rarer, its probability is too high. Its thresholds favour sensitivity at a "
    "low specificity, and it rises with the number of false alarms on large slides.",
    "The conformal rule and the limit of novelty come from some 30 patients of the same "
    "collection: the rates they state hold for slides like those and for no others.",
)


def describe_encoder(recipe: TileRecipe, feature_size: int) -> EncoderCard:
    """The encoder as the tile stage trained it."""
    half = (0.5, 0.5, 0.5)
    return EncoderCard(
        name="mobilenetv2_100",
        arguments={"pad_type": "same"},
        pooling="default",
        feature_size=feature_size,
        input_px=recipe.input_px,
        interpolation="bilinear",
        mean=half,
        std=half,
    )


def describe_tile_stage(recipe: TileRecipe) -> str:
    """How the encoder and the tile classifier were trained, with every number."""
    return (
        "Fine-tuned whole with a linear classifier on single tiles: AdamW, cosine rate with "
        "warm-up, bfloat16 autocast, running average of the weights kept; augmented by stain, "
        "colour, focus, JPEG, noise, glass at the edge, rotation, flip, scale, shift, mixup, and "
        f"painted blank tiles as negatives. {_spell(recipe)}. The weights of {recipe.members} such "
        "networks, of seeds that follow one another, are averaged. Platt's line, fitted on "
        "validation patients, is folded into the classifier."
    )


def describe_bag_stage(recipe: BagRecipe) -> str:
    """How bags were made and the head was trained, with every number."""
    return (
        "Gated attention on frozen features. A positive bag holds IDC tiles and non-IDC tiles of "
        "one patient, the share of IDC tiles drawn log-uniformly; a negative bag holds non-IDC "
        "tiles of one patient. Tiles are drawn with replacement from the plain tile and augmented "
        "copies, with relative Gaussian noise on the features; bag sizes are log-uniform. "
        f"{_spell(recipe)}. The probability is calibrated by Platt's line, fitted on bags of "
        "validation patients, which the card holds."
    )


def _spell(recipe: TileRecipe | BagRecipe) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in asdict(recipe).items())
