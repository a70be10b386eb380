"""The table of pathology backbones that timm can build: what each takes, gives, and allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from slidetriage.models.card import EncoderCard

Three = tuple[float, float, float]

IMAGENET: tuple[Three, Three] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: tuple[Three, Three] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OPTIMUS: tuple[Three, Three] = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))

_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
_KAIKO = "kaiko_ai_towards_large_pathology_fms"


@dataclass(frozen=True, slots=True)
class Backbone:
    """A pathology backbone: where it is, how timm builds it, and under which terms."""

    name: str
    repository: str
    """owner/name on the Hugging Face hub."""
    architecture: str
    """timm's name."""
    feature_size: int
    parameters_millions: float
    """As published; a test builds the architecture and compares."""
    licence: str
    commercial: bool
    """Whether the licence allows commercial use."""
    gated: bool
    """Whether the hub asks for an account and agreement before it gives the weights."""
    arguments: Mapping[str, object] = field(default_factory=dict)
    """Further arguments of `timm.create_model`."""
    pooling: Literal["default", "class_and_mean"] = "default"
    normalisation: tuple[Three, Three] = IMAGENET
    """Mean and standard deviation of red, green, blue."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    input_px: int = 224
    mpp: float = 0.5
    """Micrometres per pixel of the tiles it is to be given."""
    note: str = ""

    @property
    def card(self) -> EncoderCard:
        """The card an encoder is made with."""
        mean, std = self.normalisation
        return EncoderCard(
            name=self.architecture,
            arguments=self.arguments,
            pooling=self.pooling,
            feature_size=self.feature_size,
            input_px=self.input_px,
            interpolation=self.interpolation,
            mean=mean,
            std=std,
        )


def _kaiko(size: str, patch: int, feature_size: int, millions: float) -> Backbone:
    return Backbone(
        f"kaiko-{size[0]}{patch}",
        f"1aurent/vit_{size}_patch{patch}_224.{_KAIKO}",
        f"vit_{size}_patch{patch}_224",
        feature_size,
        millions,
        "kaiko-non-commercial",
        commercial=False,
        gated=False,
        arguments={"dynamic_img_size": True},
        normalisation=HALF,
        interpolation="bilinear",
    )


def _lunit(patch: int) -> Backbone:
    return Backbone(
        f"lunit-s{patch}",
        f"1aurent/vit_small_patch{patch}_224.lunit_dino",
        f"vit_small_patch{patch}_224",
        384,
        22,
        "lunit-non-commercial",
        commercial=False,
        gated=False,
        arguments={"dynamic_img_size": True},
        normalisation=(
            (0.70322989, 0.53606487, 0.66096631),
            (0.21716536, 0.26081574, 0.20723464),
        ),
        interpolation="bilinear",
        note="Normalised as Lunit's release states; the hub's config.json may state ImageNet's.",
    )


_ALL = (
    Backbone(
        "uni",
        "MahmoodLab/UNI",
        "vit_large_patch16_224",
        1024,
        303,
        "CC-BY-NC-ND-4.0",
        commercial=False,
        gated=True,
        arguments={"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
        interpolation="bilinear",
        note="Published as pytorch_model.bin: convert it once with convert_pickled.",
    ),
    Backbone(
        "uni2-h",
        "MahmoodLab/UNI2-h",
        "vit_giant_patch14_224",
        1536,
        681,
        "CC-BY-NC-ND-4.0",
        commercial=False,
        gated=True,
        arguments={
            "img_size": 224,
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 5.33334,
            "no_embed_class": True,
            "reg_tokens": 8,
            "dynamic_img_size": True,
            **_SWIGLU,
        },
        interpolation="bilinear",
        note="Published as pytorch_model.bin: convert it once with convert_pickled.",
    ),
    Backbone(
        "prov-gigapath",
        "prov-gigapath/prov-gigapath",
        "vit_giant_patch14_dinov2",
        1536,
        1135,
        "Prov-GigaPath terms (Apache-2.0 with conditions: research only)",
        commercial=False,
        gated=True,
        arguments={"img_size": 224, "patch_size": 16, "mlp_ratio": 5.33334},
        note="Its authors cut the central 224 of 256 px, so give tiles of 224 px. Published as "
        "pytorch_model.bin: convert it once with convert_pickled.",
    ),
    Backbone(
        "virchow",
        "paige-ai/Virchow",
        "vit_huge_patch14_224",
        2560,
        631,
        "Apache-2.0",
        commercial=True,
        gated=True,
        arguments={
            "img_size": 224,
            "init_values": 1e-5,
            "mlp_ratio": 5.3375,
            "dynamic_img_size": True,
            **_SWIGLU,
        },
        pooling="class_and_mean",
    ),
    Backbone(
        "virchow2",
        "paige-ai/Virchow2",
        "vit_huge_patch14_224",
        2560,
        631,
        "CC-BY-NC-ND-4.0",
        commercial=False,
        gated=True,
        arguments={
            "img_size": 224,
            "init_values": 1e-5,
            "mlp_ratio": 5.3375,
            "reg_tokens": 4,
            "dynamic_img_size": True,
            **_SWIGLU,
        },
        pooling="class_and_mean",
        note="Trained at 2, 1, 0.5 and 0.25 um/px.",
    ),
    Backbone(
        "h-optimus-0",
        "bioptimus/H-optimus-0",
        "vit_giant_patch14_reg4_dinov2",
        1536,
        1135,
        "Apache-2.0",
        commercial=True,
        gated=False,
        arguments={"img_size": 224, "init_values": 1e-5, "dynamic_img_size": False},
        normalisation=OPTIMUS,
    ),
    Backbone(
        "h-optimus-1",
        "bioptimus/H-optimus-1",
        "vit_giant_patch14_reg4_dinov2",
        1536,
        1135,
        "CC-BY-NC-ND-4.0",
        commercial=False,
        gated=True,
        arguments={"img_size": 224, "init_values": 1e-5, "dynamic_img_size": False},
        normalisation=OPTIMUS,
    ),
    Backbone(
        "h0-mini",
        "bioptimus/H0-mini",
        "vit_base_patch14_reg4_dinov2",
        1536,
        86,
        "CC-BY-NC-ND-4.0",
        commercial=False,
        gated=True,
        arguments={"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.33334, **_SWIGLU},
        pooling="class_and_mean",
        normalisation=OPTIMUS,
        note="The class token alone, 768 features, is the other use its authors name.",
    ),
    _kaiko("small", 16, 384, 22),
    _kaiko("small", 8, 384, 22),
    _kaiko("base", 16, 768, 86),
    _kaiko("base", 8, 768, 86),
    Backbone(
        "kaiko-l14",
        f"1aurent/vit_large_patch14_reg4_224.{_KAIKO}",
        "vit_large_patch14_reg4_dinov2",
        1024,
        304,
        "kaiko-non-commercial",
        commercial=False,
        gated=False,
        arguments={"dynamic_img_size": True},
        normalisation=HALF,
        interpolation="bilinear",
        note="Built at 518 px, given tiles of 224 px; positions are interpolated.",
    ),
    _lunit(8),
    _lunit(16),
    Backbone(
        "resnet50",
        "timm/resnet50.a1_in1k",
        "resnet50",
        2048,
        23.5,
        "Apache-2.0",
        commercial=True,
        gated=False,
        note="ImageNet, no pathology: a stand-in to try things with, at any scale.",
    ),
)

BACKBONES: Mapping[str, Backbone] = {backbone.name: backbone for backbone in _ALL}
"""By name. Left out: Phikon, Hibou, Midnight, CONCH, CTransPath, MUSK and KEEP, which timm does
not build; and GPFM, whose tensors' names in its pickle could not be checked."""
