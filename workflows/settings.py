"""Everything that decides what a run computes, as one value; where it runs is not part of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from slidetriage.errors import UsageError

Precision = Literal["auto", "float32", "bfloat16", "float16"]

Ngff = Literal["0.5", "0.4"]

Where = Literal["regions", "given", "tissue"]

DEFAULT_BUNDLE = "breast-idc-scout"

DEFAULT_DETECTOR = "nuclei-he"

RESEARCH_USE = "For Research Use Only. Not for use in diagnostic procedures."


@dataclass(frozen=True, slots=True)
class CellSettings:
    """Where nuclei are looked for, and by what."""

    where: Where = "regions"
    """In the regions that the model flags, in given ones, or in all tissue; without the model's
    regions the model does not run."""
    given: str = ""
    """GeoJSON file of the given regions, or a folder with one for each slide."""
    detector: str = DEFAULT_DETECTOR
    """Name of a shipped detector, "classical", or the folder of one."""
    classifier: str = ""
    """File of a classifier of nuclei (see `slidetriage cells --help`); empty for the rule."""
    margin_um: float = 50.0
    """How far around regions nuclei are looked for as well."""
    window_px: int = 768
    """Side of the windows that the detector sees at a time."""
    required: bool = False
    """Whether a slide too coarse for the detector is rejected rather than triaged without."""

    def __post_init__(self) -> None:
        if self.where not in get_args(Where):
            raise UsageError(
                f"Nuclei cannot be looked for in {self.where!r}.",
                mend=f"Choose one of {', '.join(get_args(Where))}.",
            )
        if not 0 <= self.margin_um <= 10_000:
            raise UsageError(f"margin_um is {self.margin_um}; it must lie between 0 and 10000.")
        if not 128 <= self.window_px <= 4096:
            raise UsageError(f"window_px is {self.window_px}; it must lie between 128 and 4096.")

    def as_record(self) -> dict[str, object]:
        """Every setting that changes results; files are told by their hashes elsewhere."""
        record = asdict(self)
        del record["given"], record["required"], record["detector"], record["classifier"]
        return record


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
    """OME-Zarr version of the heatmap and of the label image of nuclei."""
    compress_geojson: bool = False
    """Whether GeoJSON is written as .geojson.gz."""
    crop_to_bounds: bool = True
    """Whether GeoJSON is in QuPath's frame (bounds subtracted) rather than OpenSlide's."""
    keep_features: bool = False
    """Whether the features are published beside the results."""
    deidentify: bool = False
    """Whether results, tables and messages name slides without the names of their files."""
    cells: CellSettings | None = None
    """How nuclei are looked for; None where they are not."""
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

    @property
    def scores_slides(self) -> bool:
        """Whether the model runs; not where nuclei are all that is asked for."""
        return self.cells is None or self.cells.where == "regions"

    def stride_px(self, tile_px: int) -> int:
        """Distance of neighbouring tiles in tile pixels."""
        return max(1, round(tile_px * (1 - self.overlap)))

    def as_record(self) -> dict[str, object]:
        """For provenance: every setting that changes results; the model is told by its hash."""
        record = asdict(self)
        del record["model"], record["stall_s"]
        record["cells"] = None if self.cells is None else self.cells.as_record()
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Settings:
        """What `dataclasses.asdict` made of settings."""
        cells = record.get("cells")
        return cls(**{**record, "cells": None if cells is None else CellSettings(**cells)})
