"""The levels of a pyramid: how they were made, and which one to read."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

from .slide import FINER, Level


def make_levels(sizes: Sequence[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels from their sizes in px, width and height, level 0 first."""
    return tuple(Level(*size, exact_downsample(sizes[0], size)) for size in sizes)


def exact_downsample(whole: tuple[int, int], level: tuple[int, int]) -> float:
    """Level-0 px per px of a level, from both sizes.

    Writers halve a pyramid and drop the odd row, so the ratio of the sizes is a little more than
    the whole number by which the pixels were really joined; over a slide that adds up to a pixel
    of the level. Where a whole number explains both sizes it is taken.

    >>> exact_downsample((2220, 2967), (277, 370))
    8.0
    >>> exact_downsample((1000, 1000), (300, 300)) == 1000 / 300
    True
    """
    ratios = [full / part for full, part in zip(whole, level, strict=True)]
    mean = sum(ratios) / 2
    for joined in (2 ** round(log2(mean)), round(mean)):
        sizes = zip(whole, level, strict=True)
        if all(part in (full // joined, -(-full // joined)) for full, part in sizes):
            return float(joined)
    return mean


def choose_level(
    levels: tuple[Level, ...], scale_x: float, scale_y: float, *, finer: float = FINER
) -> int:
    """Index of the coarsest level that is fine enough for output pixels of `scale` level-0 px.

    A level known to hold means of level 0 is fine enough when its pixels are no larger than those
    asked for; any other must have `finer` pixels for each side of them (docs/decisions/0003), or
    be level 0.

    >>> levels = (Level(800, 800, 1.0), Level(200, 200, 4.0))
    >>> [choose_level(levels, scale, scale) for scale in (15.0, 16.0)]
    [0, 1]
    >>> choose_level((Level(800, 800, 1.0), Level(200, 200, 4.0, averaged=True)), 4.0, 4.0)
    1
    """
    # A level a thousandth too coarse is meant to be the one asked for (sizes are rounded).
    wanted = min(scale_x, scale_y) * 1.001
    fitting = [
        index
        for index, level in enumerate(levels)
        if index == 0 or level.downsample * (1 if level.averaged else finer) <= wanted
    ]
    return max(fitting, key=lambda index: levels[index].downsample)
