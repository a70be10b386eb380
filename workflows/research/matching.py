"""Which slides of a cohort have features; the others are named at once, or left out and said."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from slidetriage.errors import UsageError

from .bags import BagSource, FileBags, open_bags
from .cohort import Cohort
from .table_reading import list_some
from .tables import Excusable


def open_cohort_bags(
    cohort: Cohort, where: Path | None = None, *, encoder_name: str | None = None
) -> BagSource:
    """The features of a cohort: those its table names, or those in a folder or .npz.

    Raises
    ------
    UsageError
        There are none, they are damaged (E_FEATURES), or of different encoders (E_FEATURES_MIXED).
    """
    if where is not None:
        return open_bags(where, cohort.slides, encoder_name=encoder_name)
    if cohort.features is None:
        raise UsageError(
            "Nothing says where the features are.",
            mend="Give a folder or .npz with --features, or a column with --features-column.",
        )
    named = dict(zip(cohort.slides, cohort.features, strict=True))
    there = {slide: path for slide, path in named.items() if path.exists()}
    if not there:
        raise UsageError(
            f"{cohort.source}: none of the {len(named)} features it names is there, such as "
            f"{next(iter(named.values()))}.",
            mend="Paths are relative to the table.",
            code="E_FEATURES",
        )
    return FileBags(there, encoder_name=encoder_name)


def match_features(
    cohort: Cohort, source: BagSource, *, excuse: Collection[Excusable] = ()
) -> Cohort:
    """The cohort of the slides that have features; those with none, or no tile, are excluded.

    Raises
    ------
    UsageError
        Slides have no features and that was not agreed to (`no-features`), or of what is left no
        two slides differ.
    """
    reasons = {}
    for row, slide in enumerate(cohort.slides):
        tiles = source.tiles(slide)
        if not tiles:
            reasons[row] = "has no features" if tiles is None else "has features of no tile"
    if reasons and "no-features" not in excuse:
        names = [cohort.slides[row] for row in reasons]
        raise UsageError(
            f"{cohort.source}: {len(names)} of {len(cohort)} slides have no features: "
            f"{list_some(names)} (rows {list_some(cohort.rows[row] for row in reasons)}).",
            mend="Extract them, or leave such slides out with --exclude no-features.",
            code="E_FEATURES",
        )
    left = cohort.exclude(reasons)
    if not left.slides:
        raise UsageError(f"{cohort.source}: no slide has features.", code="E_FEATURES")
    if len(left.labels_seen()) == 1:
        raise UsageError(
            f"{cohort.source}: all slides that have features have one label.",
            mend="Extract the features of the others.",
            code="E_TABLE",
        )
    return left
