"""Where a label image lies: beside the image that its cells were found in, or by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zarr

from slidetriage.errors import OutputError
from slidetriage.workflows.settings import Ngff

from .label_frame import NAME


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """A label image that is yet to be written: its path, and what follows from where that is."""

    path: Path
    """Of the label image."""
    home: Path
    """An existing folder, in which it is put together out of sight."""
    zarr_format: Literal[2, 3]
    """2 is NGFF 0.4, 3 is NGFF 0.5."""
    levels: int | None = None
    """As many as the image beside it has, as NGFF demands; None where there is none."""
    source: str | None = None
    """Path from the label image to the image that it is of; None where that is no OME-Zarr."""

    @classmethod
    def beside(cls, image: Path) -> LabelPlace:
        """As `labels/nuclei` of an OME-Zarr image, in its version of NGFF.

        Raises `OutputError` where there is no such image.
        """
        try:
            opened = zarr.open_group(image, mode="r")
        except (FileNotFoundError, ValueError) as error:
            raise OutputError(
                f"{image.name}: there is no OME-Zarr image to lay labels beside.",
                mend="Write the heatmap first.",
            ) from error
        attributes: Any = opened.attrs.get("ome", opened.attrs)
        scales = attributes.get("multiscales")
        levels = len(scales[0]["datasets"]) if scales else None
        path = image / "labels" / NAME
        return cls(path, image, opened.metadata.zarr_format, levels, "../../")

    @classmethod
    def alone(cls, path: Path, ngff: Ngff) -> LabelPlace:
        """As an OME-Zarr image by itself: of a slide, which is none.

        NGFF lets `image-label` leave out its `source`, and takes "../../" for the image where the
        source names none; so it is left out. Which slide it is of stands with the provenance.
        """
        return cls(path, path.parent, 3 if ngff == "0.5" else 2)

    @property
    def hidden(self) -> Path:
        """The folder in which the image is put together."""
        return self.home / f".writing-{self.path.name}"

    def check(self) -> None:
        """Raise `OutputError` where something is there already."""
        if self.path.exists():
            raise OutputError(
                f"There are {self.path.name} in {self.home.name} already.",
                mend="Write to a new directory.",
            )

    def attributes(
        self, multiscale: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Of the label image's group."""
        label: dict[str, Any] = {} if self.source is None else {"source": {"image": self.source}}
        if self.zarr_format == 3:
            image = {"version": "0.5", "multiscales": [multiscale], "image-label": label}
            return {"ome": image, "slidetriage": provenance}
        return {
            "multiscales": [{**multiscale, "version": "0.4"}],
            "image-label": {**label, "version": "0.4"},
            "slidetriage": provenance,
        }

    def publish(self, made: Path) -> None:
        """Move the finished image to its place; the image beside then lists it."""
        if self.source is None:
            made.rename(self.path)
            return
        labels = zarr.open_group(self.path.parent, mode="a", zarr_format=self.zarr_format)
        made.rename(self.path)
        if self.zarr_format == 3:
            known: Any = labels.attrs.get("ome", {})
            names = sorted({*known.get("labels", ()), self.path.name})
            labels.attrs["ome"] = {"version": "0.5", **known, "labels": names}
        else:
            already: Any = labels.attrs.get("labels", ())
            labels.attrs["labels"] = sorted({*already, self.path.name})
