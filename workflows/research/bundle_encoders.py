"""The encoder that goes into a bundle: the very one that the features are of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from slidetriage.errors import UsageError
from slidetriage.models import Device, EncoderReference, load_bundle

from .bags import MPP_TOLERANCE, find_features
from .encoders import BundleEncoder, EncoderSource, StainedEncoder, TileCard, TileModel
from .feature_files import read_header
from .feature_values import FeatureHeader
from .registered_encoders import RegisteredEncoder
from .study import Study


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """An encoder, and how a bundle comes to its weights."""

    model: TileModel
    reference: EncoderReference | None
    """None where the weights are copied into the bundle."""


def open_origin(source: EncoderSource) -> Origin:
    """Load an encoder; one of the registry, or of a bundle that refers to it, is referred to."""
    device = Device("cpu")
    if isinstance(source, StainedEncoder):
        inner = open_origin(source.source)
        return replace(inner, model=replace(source, source=lambda _: inner.model)(device))
    if isinstance(source, BundleEncoder):
        bundle = load_bundle(source.model, device=device)
        card = bundle.card
        tiles = TileCard(card.name, card.mpp, card.mpp_range, card.tile_px)
        model = TileModel(tiles, bundle.encoder, stain=card.stain_normaliser)
        return Origin(model, card.encoder_from)
    model = source(device)
    if isinstance(source, RegisteredEncoder):
        # Features state the name as well; the bundle's reference has it in a field of its own.
        return Origin(model, EncoderReference(source.model, model.encoder.identifier))
    return Origin(model, None)


def check_origin(origin: Origin, study: Study) -> None:
    """Raise `UsageError` (E_FEATURES_MIXED) unless the study's features are of this encoder."""
    model, stated = origin.model, study.open().encoder
    if stated != model.identity:
        raise UsageError(
            f"The features are of {stated}, but {model.card.name} is {model.identity}.",
            mend="Name the encoder that made the features, with --model or with --encoder and "
            "--weights, and with --stain-target where stains were normalised.",
            code="E_FEATURES_MIXED",
        )
    for header in _headers(study):
        facts, card = header.facts, model.card
        if facts.mpp is None or facts.tile_px is None:
            continue
        if facts.tile_px != card.tile_px or abs(facts.mpp - card.mpp) > MPP_TOLERANCE * card.mpp:
            raise UsageError(
                f"{header.path} is of tiles of {facts.tile_px} px at {facts.mpp:g} um/px, but "
                f"{card.name} is given {card.tile_px} px at {card.mpp:g} um/px.",
                mend="Extract the features again with `slidetriage features`.",
                code="E_FEATURES_MIXED",
            )


def _headers(study: Study) -> Iterator[FeatureHeader]:
    """What the files of the study say of themselves; an .npz says nothing."""
    where, cohort = study.features, study.cohort
    for row, slide in enumerate(cohort.slides):
        if where is None:
            path = None if cohort.features is None else cohort.features[row]
        else:
            path = find_features(where, slide) if where.is_dir() else None
        if path is not None:
            yield read_header(path)
