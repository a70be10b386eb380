"""What a label image says of itself: its size, where it lies on the slide, and its levels."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

NAME = "nuclei"
"""What viewers call the label image; within a group `labels` also its folder."""


@dataclass(frozen=True, slots=True)
class LabelFrame:
    """The slide, and the pixels that its nuclei were found in."""

    width_px: float
    """Of the slide, in level-0 px."""
    height_px: float
    mpp_x: float
    """um per level-0 px."""
    mpp_y: float
    mpp: float
    """um per pixel of the label image: the detector's."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the label image.

        >>> LabelFrame(1000, 501, 0.25, 0.25, 0.5).shape
        (251, 500)
        """
        # Less than a millionth of a pixel is rounding, no pixel of its own.
        rows = ceil(self.height_px * self.mpp_y / self.mpp - 1e-6)
        columns = ceil(self.width_px * self.mpp_x / self.mpp - 1e-6)
        return max(rows, 1), max(columns, 1)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the label image per level-0 px, in x and y."""
        return self.mpp_x / self.mpp, self.mpp_y / self.mpp

    def multiscale(self, halvings: list[int]) -> dict[str, Any]:
        """The image as NGFF has it (0.4 and 0.5), with a level for each number of halvings."""
        return {
            "name": NAME,
            "axes": [{"name": axis, "type": "space", "unit": "micrometer"} for axis in ("y", "x")],
            "datasets": [
                {"path": f"s{level}", "coordinateTransformations": self._transforms(halved)}
                for level, halved in enumerate(halvings)
            ],
            "type": "nearest",
            "metadata": {
                "description": "Every second pixel, once or more, of the level before.",
                "method": "slidetriage.workflows.cells.cell_labels",
            },
        }

    def _transforms(self, halved: int) -> list[dict[str, object]]:
        size_um = self.mpp * 2**halved
        # The centre of the first pixel of the finest level, from which all levels took theirs;
        # the origin is the centre of the first level-0 pixel.
        y_um, x_um = (self.mpp - self.mpp_y) / 2, (self.mpp - self.mpp_x) / 2
        return [
            {"type": "scale", "scale": [size_um, size_um]},
            {"type": "translation", "translation": [y_um, x_um]},
        ]
