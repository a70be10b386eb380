"""The walk around every label, compiled by numba; imported where it is first needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slidetriage.kernels import compiled


@compiled
def count_cracks(padded: NDArray[np.int32]) -> tuple[int, int]:
    """How many sides of pixels lie between labels, and how many outlines there can be at most.

    `padded` has a border of zeros, one pixel wide, like that of `walk_cracks`.
    """
    cracks, corners = 0, 0
    for y in range(1, padded.shape[0] - 1):
        for x in range(1, padded.shape[1] - 1):
            label = padded[y, x]
            if label != 0:
                above, before = padded[y - 1, x] != label, padded[y, x - 1] != label
                cracks += above + before
                cracks += (padded[y + 1, x] != label) + (padded[y, x + 1] != label)
                # The first pixel of a part in reading order has neither of these neighbours.
                corners += above and before
    return cracks, corners


@compiled
def walk_cracks(
    padded: NDArray[np.int32], points: NDArray[np.int32], parts: NDArray[np.int64]
) -> int:
    """Outer outlines of all 4-connected parts of all labels, clockwise as seen on a screen.

    Fills `points` (cracks x 2) with x, y of crack midpoints, twice their value so that they are
    whole numbers, and `parts` (corners x 4) with label, first point, number of points and twice
    the enclosed area in those doubled units. Returns the number of parts.
    """
    # Right, down, left, up; the inside is on the right of the walker.
    step_x, step_y = (1, 0, -1, 0), (0, 1, 0, -1)
    # From twice the pixel's place in the padded image to twice the midpoint of the side walked on.
    side_x, side_y = (-1, 0, -1, -2), (-2, -1, 0, -1)
    walked = np.zeros(padded.shape, np.bool_)
    found, end = 0, 0
    for top in range(1, padded.shape[0] - 1):
        for left in range(1, padded.shape[1] - 1):
            label = padded[top, left]
            if label == 0 or padded[top - 1, left] == label or walked[top, left]:
                continue
            x, y, turn, first, area = left, top, 0, end, 0
            while True:
                if turn == 0:
                    walked[y, x] = True
                points[end, 0], points[end, 1] = 2 * x + side_x[turn], 2 * y + side_y[turn]
                if end > first:
                    area += (
                        points[end - 1, 0] * points[end, 1] - points[end, 0] * points[end - 1, 1]
                    )
                end += 1
                ahead_x, ahead_y = x + step_x[turn], y + step_y[turn]
                outward = (turn + 3) % 4
                if padded[ahead_y, ahead_x] != label:
                    turn = (turn + 1) % 4
                elif padded[ahead_y + step_y[outward], ahead_x + step_x[outward]] != label:
                    x, y = ahead_x, ahead_y
                else:
                    x, y, turn = ahead_x + step_x[outward], ahead_y + step_y[outward], outward
                if turn == 0 and x == left and y == top:
                    break
            area += points[end - 1, 0] * points[first, 1] - points[first, 0] * points[end - 1, 1]
            if area > 0:
                parts[found, 0], parts[found, 1] = label, first
                parts[found, 2], parts[found, 3] = end - first, area
                found += 1
            else:  # the border of a hole
                end = first
    return found
