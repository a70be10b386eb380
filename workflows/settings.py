"""Everything that decides what a run computes, as one value; where it runs is not part of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from slidetriage.errors import UsageError

Precision = Literal["auto", "float32", "bfloat16", "float16"]

Ngff = Literal["0.5", "0.4"]

DEFAULT_BUNDLE = "breast-idc-scout"

RESEARCH_USE = "For Research Use Only. Not for use in diagnostic procedures."


@dataclass(frozen=True, slots=True)
class Settings:
    """How slides are triaged. Two runs with equal settings and equal slides give equal bytes."""

    model: str = DEFAULT_BUNDLE
    """Name of a shipped bundle, or the folder of one."""
    masker: str = "slidetriage"
    """How tissue is found: slidetriage, otsu or morphological."""
    min_tissue: float = 0.25
    """Share of a tile that must be tissue for it to be read."""
    overlap: float = 0.0
    """Share of a tile's side that neighbours have in common, 0 to 0.9."""
    batch_tiles: int = 64
    """Tiles per unit of work, and per chunk of the feature store."""
    max_unreadable: float = 0.001
    """Share of tiles that may be unreadable (one always may) before the slide fails."""
    device: str = "cpu"
    """torch device the encoder runs on."""
    precision: Precision = "auto"
    """Numbers the encoder computes in: auto is the fastest that device and model do well."""
    threads: int = 1
    """torch threads per worker; sums depend on it, so it is fixed and recorded."""
    ngff: Ngff = "0.5"
    """OME-Zarr version of the heatmap."""
    compress_geojson: bool = False
    """Whether GeoJSON is written as .geojson.gz."""
    crop_to_bounds: bool = True
    """Whether GeoJSON is in QuPath's frame (bounds subtracted) rather than OpenSlide's."""
    keep_features: bool = False
    """Whether the features are published beside the results."""
    deidentify: bool = False
    """Whether results, tables and messages name slides without the names of their files."""
    stall_s: float = 30.0
    """Seconds without a sign of life after which a decoder is held to hang; not recorded."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("min_tissue", 0.0, 1.0),
            ("overlap", 0.0, 0.9),
            ("max_unreadable", 0.0, 1.0),
            ("batch_tiles", 1, 4096),
            ("threads", 1, 1024),
            ("stall_s", 0.1, 86400),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}; it must lie between {low:g} and {high:g}.")
        if self.precision not in get_args(Precision):
            raise UsageError(
                f"There is no precision {self.precision!r}.",
                mend=f"Choose one of {', '.join(get_args(Precision))}.",
            )
        if self.ngff not in ("0.5", "0.4"):
            raise UsageError(f"OME-Zarr version {self.ngff!r} is not written; choose 0.5 or 0.4.")

    def stride_px(self, tile_px: int) -> int:
        """Distance of neighbouring tiles in tile pixels."""
        return max(1, round(tile_px * (1 - self.overlap)))

    def as_record(self) -> dict[str, object]:
        """For provenance: every setting that changes results; the model is told by its hash."""
        record = asdict(self)
        del record["model"], record["stall_s"]
        return record
