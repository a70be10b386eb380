"""The area filter: every output pixel is the mean of exactly the source area it covers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


def area_weights(
    count: int, start: float, scale: float, length: int, *, window: float | None = None
) -> csr_array:
    """Weights of one axis: `count` output pixels x `length` source pixels.

    Parameters
    ----------
    count
        Number of output pixels.
    start
        Source coordinate of the first output pixel's left edge, in source px.
    scale
        Source px per output px.
    length
        Number of source pixels; what an output pixel covers beyond them has no weight.
    window
        Source px that each output pixel covers where that is not `scale`: windows overlap when it
        is larger. They start at `start`, `start + scale`, and so on.

    Notes
    -----
    For `scale` >= 1 the weight is the length of the overlap of output pixel i, that is
    [start + i scale, start + (i + 1) scale], with source pixel j, that is [j, j + 1], over
    `scale`. For `scale` < 1 (enlarging) the filter is one source pixel wide instead, which is
    linear interpolation between pixel centres.

    >>> (3 * area_weights(2, 0.5, 1.5, 4).toarray()).round().astype(int).tolist()
    [[1, 2, 0, 0], [0, 0, 2, 1]]
    """
    covered = scale if window is None else window
    width = max(covered, 1.0)
    centres = start + np.arange(count) * scale + covered / 2
    left, right = centres - width / 2, centres + width / 2
    first = np.floor(left).astype(np.int64)
    # An edge within a millionth of a pixel of the next one is rounding, not area.
    reach = int(np.ceil(width - 1e-6)) + 1
    source = first[:, None] + np.arange(reach)
    overlap = np.minimum(source + 1, right[:, None]) - np.maximum(source, left[:, None])
    used = (overlap > 1e-6) & (source >= 0) & (source < length)
    output = np.broadcast_to(np.arange(count)[:, None], source.shape)
    return csr_array(
        ((overlap[used] / width).astype(np.float32), (output[used], source[used])),
        shape=(count, length),
    )


def resample(image: NDArray[np.uint8], rows: csr_array, columns: csr_array) -> NDArray[np.float32]:
    """Apply the weights of both axes: height x width x C uint8 to rows x columns x C float32."""
    height, width, channels = image.shape
    flat = image.reshape(height, width * channels).astype(np.float32)
    tall = (rows @ flat).reshape(rows.shape[0], width, channels)
    turned = np.ascontiguousarray(tall.transpose(1, 0, 2)).reshape(width, -1)
    wide = (columns @ turned).reshape(columns.shape[0], rows.shape[0], channels)
    return np.ascontiguousarray(wide.transpose(1, 0, 2))


def flatten_alpha(
    rgba: NDArray[np.float32], background: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Paint what is transparent in the background colour.

    Parameters
    ----------
    rgba
        height x width x 4; RGB multiplied by the share that is opaque, and that share times 255.

    Returns
    -------
    rgb, valid
        uint8 height x width x 3, and True where more than half of the pixel is opaque.
    """
    opaque = rgba[..., 3:] / 255
    rgb = rgba[..., :3] + (1 - opaque) * np.asarray(background, np.float32)
    return np.clip(rgb + 0.5, 0, 255).astype(np.uint8), opaque[..., 0] > 0.5
