"""What training does to a labelled image: other stains, other tissue behind, scale, optics, JPEG.

All randomness comes from the generator passed in.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .targets import relabel

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]
Labels = NDArray[np.int32]

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
"""Optical density of red, green and blue (Ruifrok & Johnston 2001)."""

EOSIN = np.array([0.12, 0.88, 0.42], np.float32)


def warp(
    image: Image, labels: Labels, scale: float, size_px: int, rng: np.random.Generator
) -> tuple[Image, Labels]:
    """Cut a square of `size_px` at `scale`, turned and mirrored at random, edges reflected."""
    height, width = labels.shape
    angle = rng.integers(4) * np.pi / 2
    if rng.random() < 0.5:
        angle += rng.uniform(-0.8, 0.8)
    stretch = np.exp(rng.normal(0, 0.06))
    flip = 1.0 if rng.random() < 0.5 else -1.0
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([flip * stretch, 1 / stretch]) * scale
    # The window lies within the image where it can.
    half = size_px / 2 / scale
    middle = [
        rng.uniform(min(half, side / 2), max(side - half, side / 2)) for side in (width, height)
    ]
    shift = size_px / 2 - turn @ np.array(middle)
    matrix = np.column_stack([turn, shift])
    if scale < 0.9:
        image = cv2.GaussianBlur(image, (0, 0), 0.45 / scale)
    turned = cv2.warpAffine(
        image, matrix, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    numbers = cv2.warpAffine(
        labels.astype(np.float32),
        matrix,
        (size_px, size_px),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return turned, relabel(numbers.astype(np.int32))


def restain(image: Image, labels: Labels, behind: Image | None, rng: np.random.Generator) -> Image:
    """Take the nuclei's stain out and draw it again in another colour before another background.

    How dark a pixel is beyond the tissue around the nuclei becomes an amount of haematoxylin;
    `behind`, an image of the same size without nuclei, or a plain tint is what lies behind it.
    """
    density = -np.log10((image.astype(np.float32) + 1) / 256)
    inside = labels > 0
    if not inside.any() or inside.all():
        return image
    around = np.median(density[~inside], axis=0)
    direction = density[inside].mean(0) - around
    amount = (density - around) @ (direction / max(float(direction @ direction), 1e-3))
    amount = np.clip(amount, -0.15, 2.5)
    cover = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.8)
    amount = _vary_nuclei(amount, labels, rng)
    amount *= cover + (1 - cover) * np.float32(rng.uniform(0.2, 1.0))
    haematoxylin = _jitter(HAEMATOXYLIN, 0.13, rng) * rng.uniform(0.55, 1.5)
    if behind is None:
        base = _jitter(EOSIN if rng.random() < 0.6 else HAEMATOXYLIN, 0.25, rng)
        base = base * np.float32(rng.choice([0.03, rng.uniform(0.05, 0.7)]))
        back = base * (1 + _waves(labels.shape, rng)[..., None] * np.float32(rng.uniform(0, 0.5)))
    else:
        back = -np.log10((behind.astype(np.float32) + 1) / 256)
        back = back @ _mix(rng, 0.12) * np.float32(rng.uniform(0.6, 1.5))
    back = np.maximum(back, 0) * (1 - cover * np.float32(rng.uniform(0.2, 0.9)))[..., None]
    return _to_image(back + amount[..., None] * haematoxylin)


def recolour(image: Image, rng: np.random.Generator) -> Image:
    """Mix the optical densities of the channels a little, as another batch of dyes would."""
    density = -np.log10((image.astype(np.float32) + 1) / 256)
    shift = rng.normal(0, 0.02, 3).astype(np.float32)
    return _to_image(density @ _mix(rng, 0.09) * np.float32(np.exp(rng.normal(0, 0.22))) + shift)


def change_optics(image: Image, rng: np.random.Generator) -> Image:
    """Brightness, contrast, hue, focus, noise and JPEG, each now and then."""
    x = image.astype(np.float32)
    if rng.random() < 0.5:
        x = (x - 128) * np.float32(rng.uniform(0.75, 1.25)) + 128 + np.float32(rng.normal(0, 12))
    if rng.random() < 0.3:
        x = 255 * np.clip(x / 255, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.2)))
    image = _to_bytes(x)
    if rng.random() < 0.4:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
        hsv[..., 0] = (hsv[..., 0] + rng.normal(0, 7)) % 180
        hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.6, 1.35), 0, 255)
        image = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    kind = rng.random()
    if kind < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.5))
    elif kind < 0.4:
        soft = cv2.GaussianBlur(image, (0, 0), 1.2)
        image = cv2.addWeighted(image, 1.7, soft, -0.7, 0)
    if rng.random() < 0.15:
        noise = rng.normal(0, rng.uniform(1, 9), image.shape)
        image = _to_bytes(image + noise)
    if rng.random() < 0.35:
        quality = int(rng.integers(35, 95))
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image, np.uint8)


def drop_red_cells(
    image: Image, labels: Labels, diameter_px: float, rng: np.random.Generator
) -> Image:
    """Paint pink discs and fibres that are no nuclei, between the nuclei."""
    size = labels.shape[0]
    density = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(2, 14))):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        radius = max(2.0, 0.45 * diameter_px * np.exp(rng.normal(0, 0.15)))
        axes = (round(radius), round(radius * rng.uniform(0.6, 1)))
        if rng.random() < 0.25:
            axes = (round(radius * rng.uniform(3, 8)), max(2, round(radius * rng.uniform(0.3, 1))))
        shade = rng.uniform(0.2, 0.7)
        cv2.ellipse(density, (x, y), axes, rng.uniform(0, 180), 0, 360, shade, -1, cv2.LINE_AA)
        if rng.random() < 0.3:
            cv2.circle(density, (x, y), max(1, axes[1] // 2), shade * 0.6, -1, cv2.LINE_AA)
    density = cv2.GaussianBlur(density, (0, 0), 0.9)
    density *= 1 - cv2.GaussianBlur((labels > 0).astype(np.float32), (0, 0), 1.0)
    eosin = _jitter(EOSIN, 0.1, rng)
    light = (image.astype(np.float32) + 1) * np.power(10, -density[..., None] * eosin) - 1
    return _to_bytes(light)


def _vary_nuclei(amount: Floats, labels: Labels, rng: np.random.Generator) -> Floats:
    """Give each nucleus a darkness of its own, and some a pale middle, as vesicular ones have."""
    count = int(labels.max()) + 1
    gain = np.exp(rng.normal(0, 0.22, count)).astype(np.float32)
    hollow = (rng.uniform(0, 0.75, count) * (rng.random(count) < rng.uniform(0, 0.8))).astype(
        np.float32
    )
    gain[0], hollow[0] = 1, 0
    depth = cv2.distanceTransform((labels > 0).astype(np.uint8), cv2.DIST_L2, 3)
    area = np.bincount(labels.ravel(), minlength=count)
    radius = np.sqrt(area / np.pi).astype(np.float32)
    pale = np.clip(depth / np.maximum(0.45 * radius[labels], 1) - 0.25, 0, 1)
    varied = amount * gain[labels] * (1 - hollow[labels] * pale)
    return np.asarray(varied, np.float32)


def _waves(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Smooth noise of mean 0 and sd 1 of several sizes, drawn out in one direction."""
    total = np.zeros(shape, np.float32)
    for _ in range(3):
        sigma = np.exp(rng.uniform(0, 3.2))
        side = max(4, int(2 * shape[0] / sigma))
        small = rng.normal(0, 1, (side, max(4, int(side / rng.uniform(1, 5))))).astype(np.float32)
        grown = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
        total += np.float32(rng.uniform(0.2, 1)) * (grown if rng.random() < 0.5 else grown.T)
    return np.asarray((total - total.mean()) / max(float(total.std()), 1e-6), np.float32)


def _jitter(stain: Floats, spread: float, rng: np.random.Generator) -> Floats:
    moved = np.maximum(stain + rng.normal(0, spread, 3), 0.02)
    return np.asarray(moved / np.linalg.norm(moved), np.float32)


def _mix(rng: np.random.Generator, spread: float) -> Floats:
    return (np.eye(3) + rng.normal(0, spread, (3, 3))).astype(np.float32)


def _to_image(density: Floats) -> Image:
    return _to_bytes(256 * np.power(10, -np.clip(density, 0, 3)) - 1)


def _to_bytes(values: NDArray[np.floating]) -> Image:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
