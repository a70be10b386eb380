"""Registered pathology backbones as encoders: by name, on their licences' terms, never online."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slidetriage.errors import ModelError, UsageError
from slidetriage.models import Device, HubModel
from slidetriage.models.foreign import BACKBONES, Backbone, find_backbone, open_backbone

from .encoders import BundleEncoder, EncoderSource, FileEncoder, TileCard, TileModel

WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"

FINEST, COARSEST = 0.25, 1.1
"""Slides that will do, in um/px of level 0, as multiples of a backbone's own."""


@dataclass(frozen=True, slots=True)
class RegisteredEncoder:
    """A backbone of the registry with its own scale, tile and transform.

    Raises `ModelError` for a name that is not in the registry, and `UsageError` where the licence
    has to be accepted, or where weights are named twice or not at all.
    """

    model: str
    """`name` with `weights`, or `name@commit` for weights in the hub's cache."""
    weights: Path | None = None
    """A local safetensors file; every worker must see it."""
    accept_licence: bool = False
    """The licence has been read, and allows what is done."""
    cache: Path | None = None
    """Folder of the hub's cache; None is its usual place on each worker."""

    def __post_init__(self) -> None:
        backbone = self.backbone
        if not backbone.commercial and not self.accept_licence:
            raise UsageError(
                f"{backbone.name} is licensed under {backbone.licence}, which excludes "
                f"{name_exclusions(backbone)}.",
                mend=f"Read the licence at {_page(backbone)}; if it allows what you do, give "
                "--accept-licence.",
            )
        if self.weights is None:
            self._hub_model()
        elif self._commit:
            raise UsageError(
                f"{self.model}: both a commit and a file of weights are given.",
                mend=f"Give --weights with {backbone.name} alone, or leave it out.",
            )

    def __call__(self, device: Device) -> TileModel:
        """Open the backbone; raises `ModelError` where its weights are absent or others."""
        backbone = self.backbone
        encoder = open_backbone(
            backbone.name,
            weights=self._find_weights(),
            accept_non_commercial=self.accept_licence,
            device=device,
        )
        mpp_range = (backbone.mpp * FINEST, backbone.mpp * COARSEST)
        tiles = TileCard(backbone.name, backbone.mpp, mpp_range, backbone.input_px)
        return TileModel(tiles, encoder, registered=backbone.name)

    @property
    def backbone(self) -> Backbone:
        """What the registry knows of it."""
        return find_backbone(self.model.partition("@")[0])

    @property
    def terms(self) -> str:
        """One line on the licence: what it is, what it excludes, and whether that was accepted."""
        backbone = self.backbone
        allowed = "allows commercial use"
        if not backbone.commercial:
            allowed = f"excludes {name_exclusions(backbone)} (accepted with --accept-licence)"
        return f"Licence of {backbone.name}: {backbone.licence}, {allowed}; {_page(backbone)}"

    @property
    def _commit(self) -> str:
        return self.model.partition("@")[2]

    def _hub_model(self) -> HubModel:
        backbone, commit = self.backbone, self._commit
        try:
            return HubModel.parse(f"hf-hub:{backbone.repository}@{commit}")
        except ModelError as error:
            what = f"{commit!r} is no commit of the hub" if commit else "neither is given"
            pinned = f", or --encoder {backbone.name}@ and the forty hex digits of a commit"
            raise UsageError(
                f"{backbone.name} needs a commit of the hub or a local file: {what}.",
                mend=f"Give --weights FILE{'' if _is_pickled(backbone) else pinned}."
                f"{self._say_cached()} {_say_how_to_get(backbone, 'COMMIT')}",
            ) from error

    def _find_weights(self) -> Path:
        """The file given, or that of the commit in the cache; nothing is downloaded."""
        if self.weights is not None:
            return self.weights
        model = self._hub_model()
        try:
            return model.fetch(WEIGHTS, cache=self.cache)
        except ModelError as error:
            raise ModelError(
                error.what, mend=_say_how_to_get(self.backbone, model.revision)
            ) from error

    def _say_cached(self) -> str:
        """Which commit `main` was when it was last downloaded; never taken unasked."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.backbone.repository, WEIGHTS, cache_dir=self.cache)
        if not isinstance(found, str):
            return ""
        return f" The local cache has {self.backbone.name}@{Path(found).parent.name}."


def choose_encoder(
    model: str, encoder: str | None, weights: Path | None, *, accept_licence: bool = False
) -> EncoderSource:
    """The encoder that a command names: a bundle's, one by card and weights, or a registered one.

    Raises what `RegisteredEncoder` raises, and `UsageError` where parts of an encoder are missing.
    """
    if encoder is not None and not _is_card(encoder):
        local = None if weights is None else weights.absolute()
        return RegisteredEncoder(encoder, local, accept_licence=accept_licence)
    if (encoder is None) != (weights is None):
        raise UsageError("--encoder and --weights go together.", mend="Give both, or --model.")
    if encoder is not None and weights is not None:
        return FileEncoder(Path(encoder).absolute(), weights.absolute())
    return BundleEncoder(model)


def name_exclusions(backbone: Backbone) -> str:
    """What the licence of a backbone excludes; empty where it allows commercial use.

    >>> name_exclusions(find_backbone("uni"))
    'commercial use and the sharing of changed versions'
    """
    if backbone.commercial:
        return ""
    changed = " and the sharing of changed versions" if "-ND-" in backbone.licence else ""
    return f"commercial use{changed}"


def _is_card(encoder: str) -> bool:
    """Whether a card's path was given; a file that is called as a backbone is `./name`."""
    path = Path(encoder)
    if path.suffix == ".json" or "/" in encoder:
        return True
    return encoder.partition("@")[0] not in BACKBONES and path.is_file()


def _page(backbone: Backbone) -> str:
    return f"https://huggingface.co/{backbone.repository}"


def _is_pickled(backbone: Backbone) -> bool:
    return PICKLED in backbone.note


def _say_how_to_get(backbone: Backbone, commit: str) -> str:
    gated = ""
    if backbone.gated:
        gated = (
            f"It is gated: ask for access at {_page(backbone)} with an account of yours, and log "
            "in with `hf auth login`. "
        )
    pickled = _is_pickled(backbone)
    file = PICKLED if pickled else WEIGHTS
    download = f"Download it once: `hf download {backbone.repository} {file} --revision {commit}`"
    if not pickled:
        return f"{gated}{download}."
    return (
        f"{gated}{download}; then write it as safetensors with "
        "slidetriage.models.foreign.convert_pickled, and give that with --weights."
    )
