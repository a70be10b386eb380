"""The sheet an overlay is drawn on: where panels and colour bar stand, in inches."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10

LEFT_IN = 0.35
_RIGHT_IN, _TOP_IN, _BOTTOM_IN = 1.15, 1.05, 0.85
_GAP_IN = 0.25
_BLOCK_IN = (10.9, 5.6)
"""The most both panels take together; with the margins a sheet of about 16:9."""
_ROOM_IN = (6.4, 1.9)
"""The least there is for them: the title needs the width, the colour bar the height."""
_BAR_IN = 3.4

Place = tuple[float, float, float, float]
"""Left, bottom, width, height in inches from the sheet's lower left corner."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Two equal panels and a colour bar on a sheet."""

    width: float
    height: float
    clean: Place
    heated: Place
    bar: Place
    mm_per_inch: float
    """Of the slide, in both panels along both axes."""


def lay_out(width_mm: float, height_mm: float) -> Sheet:
    """Two panels as large as the sheet allows, side by side or one above the other.

    >>> sheet = lay_out(20, 10)
    >>> sheet.clean[0] == sheet.heated[0], round(sheet.clean[2] / sheet.clean[3], 6)
    (True, 2.0)
    """
    beside = min((_BLOCK_IN[0] - _GAP_IN) / 2 / width_mm, _BLOCK_IN[1] / height_mm)
    above = min(_BLOCK_IN[0] / width_mm, (_BLOCK_IN[1] - _GAP_IN) / 2 / height_mm)
    inches_per_mm = max(beside, above)
    w, h = width_mm * inches_per_mm, height_mm * inches_per_mm
    right, down = (w + _GAP_IN, 0.0) if beside >= above else (0.0, h + _GAP_IN)
    room_x, room_y = max(w + right, _ROOM_IN[0]), max(h + down, _ROOM_IN[1])
    left = LEFT_IN + (room_x - w - right) / 2
    bottom = _BOTTOM_IN + (room_y - h - down) / 2
    bar_height = min(room_y, _BAR_IN)
    return Sheet(
        width=LEFT_IN + room_x + _RIGHT_IN,
        height=_BOTTOM_IN + room_y + _TOP_IN,
        clean=(left, bottom + down, w, h),
        heated=(left + right, bottom, w, h),
        bar=(left + w + right + 0.22, _BOTTOM_IN + (room_y - bar_height) / 2, 0.17, bar_height),
        mm_per_inch=1 / inches_per_mm,
    )


def round_down(length: float) -> float:
    """The longest of 1, 2, 5 times a power of ten that is not longer than `length`.

    >>> round_down(7.3), round_down(0.2), round_down(0.199)
    (5.0, 0.2, 0.1)
    """
    power = floor(log10(length))
    # From text, because 2 * 10 ** -1 is not the number that 0.2 is; one step more at either end,
    # because the logarithm is rounded too.
    steps = [float(f"{digit}e{power + up}") for up in (-1, 0, 1) for digit in (1, 2, 5)]
    return max(step for step in steps if step <= length * (1 + 1e-9))
