"""The phantom slide as a description in micrometres: outlines, fields, glands and nuclei."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely import affinity
from shapely.geometry import LineString, MultiPolygon, Point, Polygon
from shapely.ops import unary_union

from slidetriage.errors import UsageError

from .phantom_cells import populate
from .phantom_fields import Field, FieldGrid, Floats
from .phantom_glands import Gland, bend_around, grow_glands
from .phantom_nuclei import STAMP_PX, STAMP_RADIUS_PX, Nuclei, cut_stamps
from .phantom_texture import Textures, weave_textures


@dataclass(frozen=True, slots=True)
class PhantomSpec:
    """What phantom to make; the same spec always gives the same slide."""

    width_mm: float = 6.0
    height_mm: float = 5.0
    mpp: float = 0.5
    """Micrometres per level-0 pixel."""
    seed: int = 7
    tumour: bool = True
    pen: bool = True
    blur: bool = True
    glands: bool = True
    """Whether normal ducts and lobules are there."""

    def __post_init__(self) -> None:
        if not (0.4 <= self.width_mm <= 30 and 0.4 <= self.height_mm <= 30):
            raise UsageError(
                f"A phantom of {self.width_mm:g} x {self.height_mm:g} mm cannot be made.",
                mend="Ask for 0.4 to 30 mm along each side.",
            )
        if not 0.1 <= self.mpp <= 4:
            raise UsageError(
                f"A phantom at {self.mpp:g} um per pixel cannot be made.",
                mend="Ask for an mpp of 0.1 to 4.",
            )

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of level 0."""
        return round(self.width_mm * 1000 / self.mpp), round(self.height_mm * 1000 / self.mpp)

    def random(self, purpose: int) -> np.random.Generator:
        """Random numbers for one purpose, so that one part never shifts another."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(purpose,)))


@dataclass(frozen=True, slots=True, eq=False)
class PhantomTruth:
    """What the phantom is known to contain; outlines in level-0 px."""

    tumour: MultiPolygon
    """Invasive carcinoma with the stroma in it, as a pathologist would outline it: the outermost
    nests lie up to some 60 um within it."""
    tissue: Polygon
    pen: Polygon
    """Empty where there is none, like the next."""
    blurred: Polygon
    nuclei: Nuclei
    """Centres and axes in micrometres."""
    mpp: float
    """Micrometres per level-0 px."""


@dataclass(frozen=True, slots=True, eq=False)
class PhantomScene:
    """All that the painter needs; outlines in micrometres."""

    spec: PhantomSpec
    tumour: MultiPolygon
    tissue: Polygon
    pen: Polygon
    blurred: Polygon
    grid: FieldGrid
    fields: Floats
    """Fields x rows x columns, in the order of `Field`."""
    glands: tuple[Gland, ...]
    gland_circles: Floats
    """N x 3: centre and radius of each gland."""
    nuclei: Nuclei
    textures: Textures
    stamps: Floats
    small_stamps: Floats
    """The same at half the size."""

    def glands_near(self, x_um: tuple[float, float], y_um: tuple[float, float]) -> list[Gland]:
        """Those whose circle touches the rectangle."""
        x, y, radius = self.gland_circles.T
        near = (x > x_um[0] - radius) & (x < x_um[1] + radius)
        near &= (y > y_um[0] - radius) & (y < y_um[1] + radius)
        return [self.glands[n] for n in np.flatnonzero(near)]

    def stamps_for(self, mpp: float) -> tuple[Floats, float]:
        """The stamps to draw nuclei with at `mpp`, and the radius of their circle in px."""
        if mpp < 0.35:
            return self.stamps, STAMP_RADIUS_PX
        return self.small_stamps, STAMP_RADIUS_PX / 2

    @property
    def truth(self) -> PhantomTruth:
        """What the slide contains, in level-0 px."""
        scale = 1 / self.spec.mpp
        tumour, tissue, pen, blurred = (
            affinity.scale(shape, scale, scale, origin=(0, 0))
            for shape in (self.tumour, self.tissue, self.pen, self.blurred)
        )
        return PhantomTruth(tumour, tissue, pen, blurred, self.nuclei, self.spec.mpp)


def plan_phantom(spec: PhantomSpec) -> PhantomScene:
    """Lay out the phantom of `spec` without painting a pixel."""
    grid = FieldGrid.over(spec.width_mm * 1000, spec.height_mm * 1000)
    tissue = _outline_tissue(spec)
    tumour = _outline_tumour(spec, tissue) if spec.tumour else MultiPolygon()
    pen = _draw_pen(spec) if spec.pen else Polygon()
    blurred = _place_blur(spec) if spec.blur else Polygon()
    textures = weave_textures(spec.random(20))
    fields = np.zeros((len(Field), grid.rows, grid.columns), np.float32)
    for field, shape in (
        (Field.TISSUE, tissue),
        (Field.TUMOUR, tumour),
        (Field.PEN, pen),
        (Field.BLUR, blurred),
    ):
        fields[field] = grid.signed_distance(shape)
    _lay_background(spec, grid, fields)
    glands, rings = grow_glands(spec.random(21), grid, fields) if spec.glands else ((), [])
    fields[Field.GLAND] = grid.signed_distance(MultiPolygon([Polygon(g.wall_um) for g in glands]))
    bend_around(glands, grid, fields)
    _cut_nests(spec, grid, fields, textures)
    nuclei = populate(spec.random(22), grid, fields, textures, rings)
    circles = np.array([(*g.centre_um, g.radius_um) for g in glands], np.float32).reshape(-1, 3)
    stamps = cut_stamps(spec.random(23))
    halves = stamps.reshape(*stamps.shape[:2], STAMP_PX // 2, 2, STAMP_PX // 2, 2, 2).mean((3, 5))
    return PhantomScene(
        spec,
        tumour,
        tissue,
        pen,
        blurred,
        grid,
        fields,
        glands,
        circles,
        nuclei,
        textures,
        stamps,
        halves,
    )


def _wavy_ring(
    rng: np.random.Generator, radius: tuple[float, float], wave: float, points: int = 360
) -> NDArray[np.float64]:
    """Points x 2 around 0, 0: an ellipse with waves of relative height `wave`."""
    theta = np.linspace(0, 2 * np.pi, points, endpoint=False)
    order = np.arange(2, 16)
    height = rng.normal(0, 1, len(order)) * wave / order**0.9
    phase = rng.uniform(0, 2 * np.pi, len(order))
    stretch = 1 + (height * np.cos(order * theta[:, None] + phase)).sum(1)
    stretch = np.clip(stretch, 0.5, 1.3)
    ellipse = np.stack([radius[0] * np.cos(theta), radius[1] * np.sin(theta)], 1)
    return np.asarray(ellipse * stretch[:, None], np.float64)


def _outline_tissue(spec: PhantomSpec) -> Polygon:
    half = np.array([spec.width_mm, spec.height_mm]) * 500
    ring = _wavy_ring(spec.random(1), (0.80 * half[0], 0.78 * half[1]), 0.10)
    return Polygon(np.clip(ring, -0.93 * half, 0.93 * half) + half).buffer(0)


def _outline_tumour(spec: PhantomSpec, tissue: Polygon) -> MultiPolygon:
    """One mass of about a fifth of the tissue and a smaller one beside it."""
    rng = spec.random(2)
    half = np.array([spec.width_mm, spec.height_mm]) * 500
    size = 0.40 * half.min()
    centre = half * (0.86, 1.06)
    mass = Polygon(_wavy_ring(rng, (1.15 * size, 0.95 * size), 0.16) + centre).buffer(0)
    away = np.array([1.52, 0.72]) * half
    second = Polygon(_wavy_ring(rng, (0.42 * size, 0.5 * size), 0.15) + away).buffer(0)
    inner = tissue.buffer(-30)
    union = unary_union([mass, second]).intersection(inner)
    return union if isinstance(union, MultiPolygon) else MultiPolygon([union])


def _draw_pen(spec: PhantomSpec) -> Polygon:
    """A hand-drawn line from the glass over a corner of the tissue."""
    rng = spec.random(3)
    size = np.array([spec.width_mm, spec.height_mm]) * 1000
    t = np.linspace(0, 1, 40)[:, None]
    line = np.array([0.03, 0.37]) * (1 - t) + np.array([0.42, 0.15]) * t
    line += 0.012 * np.sin(5 * t + rng.uniform(0, 6)) + np.array([-0.02, -0.04]) * np.sin(np.pi * t)
    width = float(np.clip(0.017 * size.min(), 15, 110))
    return LineString(line * size).buffer(width)


def _place_blur(spec: PhantomSpec) -> Polygon:
    size = np.array([spec.width_mm, spec.height_mm]) * 1000
    disc = Point(0.62 * size[0], 0.74 * size[1]).buffer(0.085 * float(size.min()), 48)
    return affinity.scale(disc, 1.35, 1.0)


def _lay_background(spec: PhantomSpec, grid: FieldGrid, fields: Floats) -> None:
    rng = spec.random(10)
    x, y = np.meshgrid(grid.x_um, grid.y_um)
    turn = rng.uniform(0, np.pi)
    fields[Field.ALONG] = x * np.cos(turn) + y * np.sin(turn) + 90 * grid.noise(rng, 200)
    fields[Field.ACROSS] = (
        y * np.cos(turn)
        - x * np.sin(turn)
        + 230 * grid.noise(rng, 260)
        + 34 * grid.noise(rng, 75)
        + 13 * grid.noise(rng, 30)
        + 3 * grid.noise(rng, 11)
    )
    fields[Field.TONE] = 0.75 * grid.noise(rng, 300) + 0.66 * grid.noise(rng, 60)
    fields[Field.LOOSE] = 0.8 * grid.noise(rng, 240) + 0.6 * grid.noise(rng, 70)
    fat = 210 * (grid.noise(rng, 230) - 0.30) + 22 * grid.noise(rng, 40)
    fields[Field.FAT] = np.minimum(fat, 25 - fields[Field.TUMOUR])


def _cut_nests(spec: PhantomSpec, grid: FieldGrid, fields: Floats, textures: Textures) -> None:
    """Nests and cords follow the collagen; some parts are sheets, some are sparse."""
    rng = spec.random(11)
    cords = textures.nests.look_up(fields[Field.ALONG], fields[Field.ACROSS])
    sheets = grid.noise(rng, 130)
    thin = np.exp(-np.clip(fields[Field.TUMOUR], 0, None) / 70)
    shape = 0.85 * cords + 0.55 * grid.noise(rng, 24) + 0.75 * sheets + 0.45 - 0.7 * thin
    front = fields[Field.TUMOUR] - 28 + 20 * grid.noise(rng, 35)
    fields[Field.NEST] = np.minimum(15 * shape, front)
