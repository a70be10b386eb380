"""The rule finds the planted nuclei, names why, and does not mind odd tables."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from painted_nuclei import PaintedWindow, paint_window
from slidetriage.models.fields import read_fields, write_fields
from slidetriage.models.nuclei import Instances
from slidetriage.models.nuclei import measuring as names
from slidetriage.models.nuclei.abnormality import FEWEST, REASONS, Reference, fit_reference
from slidetriage.models.nuclei.measuring import Window, measure_neighbours, measure_nuclei
from slidetriage.models.nuclei.reference import (
    LEAST_THRESHOLD,
    MOST_THRESHOLD,
    false_discovery_threshold,
)
from slidetriage.wsi import PhantomSpec, plan_phantom
from slidetriage.wsi.phantom_nuclei import NucleusKind

Columns = dict[str, NDArray[np.float32]]


def draw(rng: np.random.Generator, count: int, **shift: float) -> Columns:
    """Nuclei of one population; `shift` in standard deviations of the usual one."""

    def normal(name: str) -> NDArray[np.float64]:
        return rng.normal(shift.get(name, 0.0), 1, count)

    size, slender = np.exp(0.25 * normal("size")), np.exp(-np.abs(rng.normal(0.2, 0.1, count)))
    columns = {
        names.AREA: 45 * size,
        names.HAEMATOXYLIN: 0.4 + 0.09 * normal("dark"),
        names.ELLIPSE_DEVIATION: 0.03 * np.exp(0.25 * normal("uneven")),
        names.MIN_DIAMETER: 7.5 * np.sqrt(size) * slender,
        names.MAX_DIAMETER: 7.5 * np.sqrt(size) / slender,
        names.NEAREST_3: 12 * np.exp(-0.2 * normal("close")),
        names.SIZE_SPREAD: 0.35 + 0.1 * normal("varied"),
    }
    return {name: column.astype(np.float32) for name, column in columns.items()}


def join(*parts: Columns) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


ODD = {"size": 2.2, "dark": 1.6, "uneven": 2.0}


@pytest.mark.parametrize("share", [0.02, 0.1, 1 / 3, 0.5, 2 / 3, 0.75])
def test_planted_nuclei_are_found_whatever_their_share(share: float) -> None:
    rng = np.random.default_rng(11)
    odd = round(3000 * share)
    columns = join(draw(rng, 3000 - odd), draw(rng, odd, **ODD))
    truth = np.arange(3000) >= 3000 - odd
    found = fit_reference(columns).assess(columns)
    hit = (found.flagged & truth).sum()
    assert hit / found.flagged.sum() > 0.85
    # Where few are abnormal, only the clearest can be told from the tail of all others.
    assert hit / truth.sum() > (0.8 if share > 0.2 else 0.4)
    middle = np.median(found.abnormality[~truth])
    assert abs(middle) < 0.3
    assert np.array_equal(found.classes == 1, found.flagged)
    assert found.class_names == ("Nucleus", "Abnormal nucleus")


@pytest.mark.parametrize("seed", range(5))
def test_where_none_is_abnormal_few_are_flagged(seed: int) -> None:
    columns = draw(np.random.default_rng(seed), 3000)
    assert fit_reference(columns).assess(columns).flagged.mean() < 0.01


def test_reasons_are_what_was_planted_the_strongest_first() -> None:
    rng = np.random.default_rng(2)
    columns = join(
        draw(rng, 2000),
        draw(rng, 40, size=6, dark=2),
        draw(rng, 40, size=2, dark=6),
        draw(rng, 40, size=2, dark=1, uneven=4.5),
    )
    found = fit_reference(columns).assess(columns)
    for first, reason in ((2000, 0), (2040, 1), (2080, 2)):
        group = slice(first, first + 40)
        assert found.flagged[group].mean() > 0.8
        assert (found.reasons[group, 0] == reason).mean() > 0.8
    assert found.reason_names == REASONS
    assert (found.reasons[found.flagged, 0] >= 0).all()
    blank = found.reasons < 0
    assert (blank[:, 1:] >= blank[:, :-1]).all()


def test_small_dark_and_slender_nuclei_are_neither_reference_nor_flagged() -> None:
    rng = np.random.default_rng(3)
    lymphocytes = draw(rng, 1500, size=-2, dark=5)
    lymphocytes[names.MIN_DIAMETER] = 0.9 * lymphocytes[names.MAX_DIAMETER]
    fibroblasts = draw(rng, 1500, size=-2, dark=1, uneven=3)
    fibroblasts[names.MIN_DIAMETER] /= 2
    tumour = join(draw(rng, 600), draw(rng, 400, **ODD))
    columns = join(lymphocytes, fibroblasts, tumour)
    reference = fit_reference(columns)
    assert reference.features.middle[0] == pytest.approx(np.log(45), abs=0.15)
    assert reference.features.middle[1] == pytest.approx(0.4, abs=0.05)
    flagged = reference.assess(columns).flagged
    assert flagged[:3000].mean() < 0.02
    assert flagged[-400:].mean() > 0.85


def test_outlines_of_several_nuclei_and_faintly_odd_spindles_are_not_flagged() -> None:
    rng = np.random.default_rng(16)
    odd = draw(rng, 300, size=4, dark=2)
    odd[names.ELLIPSE_DEVIATION][:100] = 0.25
    odd[names.MIN_DIAMETER][100:200] *= 0.4
    odd[names.HAEMATOXYLIN][100:200] = 0.4
    flagged = fit_reference(join(draw(rng, 900), odd)).assess(odd).flagged
    assert not flagged[:100].any()
    assert flagged[100:200].mean() < 0.3
    assert flagged[200:].mean() > 0.5


def test_surroundings_alone_raise_no_flag() -> None:
    rng = np.random.default_rng(4)
    columns = join(draw(rng, 2000), draw(rng, 100, close=6, varied=6))
    assert fit_reference(columns).assess(columns).flagged[2000:].mean() < 0.15


def test_chunks_give_what_the_whole_gives() -> None:
    rng = np.random.default_rng(5)
    columns = join(draw(rng, 500), draw(rng, 400, **ODD))
    reference = fit_reference(columns)
    whole = reference.assess(columns)
    for part in (slice(0, 1), slice(1, 700), slice(700, 900), slice(0, 0)):
        found = reference.assess({name: column[part] for name, column in columns.items()})
        assert np.array_equal(found.abnormality, whole.abnormality[part])
        assert np.array_equal(found.reasons, whole.reasons[part])
        assert np.array_equal(found.flagged, whole.flagged[part])


def test_the_order_of_nuclei_does_not_matter() -> None:
    rng = np.random.default_rng(6)
    columns = join(draw(rng, 500), draw(rng, 400, **ODD))
    order = rng.permutation(900)
    first = fit_reference(columns)
    second = fit_reference({name: column[order] for name, column in columns.items()})
    assert second.features.middle == pytest.approx(first.features.middle, rel=1e-3)
    assert second.threshold == pytest.approx(first.threshold, abs=0.05)


@pytest.mark.parametrize("count", [0, 1, 2, FEWEST - 1])
def test_few_nuclei_are_held_against_what_is_typical(count: int) -> None:
    columns = draw(np.random.default_rng(7), count)
    reference = fit_reference(columns)
    assert not reference.own
    assert reference.threshold == MOST_THRESHOLD
    found = reference.assess(columns)
    assert len(found) == count
    assert not found.flagged.any()
    huge = join(columns, draw(np.random.default_rng(8), 1, size=6, uneven=6))
    assert fit_reference(huge).assess(huge).flagged[-1]


def test_what_could_not_be_measured_is_not_judged() -> None:
    columns = draw(np.random.default_rng(9), 500)
    nothing = {name: np.full(500, np.nan, np.float32) for name in columns}
    found = fit_reference(nothing).assess(nothing)
    assert np.isnan(found.abnormality).all()
    assert not found.flagged.any()
    assert (found.reasons == -1).all()
    stained = {**columns, names.HAEMATOXYLIN: nothing[names.HAEMATOXYLIN]}
    found = fit_reference(stained).assess(stained)
    assert np.isfinite(found.abnormality).all()
    assert not (found.reasons == 1).any()


def test_equal_nuclei_are_all_usual() -> None:
    one = {name: column[:1] for name, column in draw(np.random.default_rng(10), 1).items()}
    columns = {name: np.repeat(column, 400) for name, column in one.items()}
    reference = fit_reference(columns)
    found = reference.assess(columns)
    assert found.abnormality == pytest.approx(0)
    assert not found.flagged.any()
    other = {**columns, names.AREA: columns[names.AREA].copy()}
    other[names.AREA][0] *= 5
    assert fit_reference(other).assess(other).flagged.tolist() == [True] + [False] * 399


def test_outlines_without_size_or_shape_do_no_harm() -> None:
    columns = draw(np.random.default_rng(12), 300)
    columns[names.AREA][:3] = 0
    columns[names.ELLIPSE_DEVIATION][3:6] = 0
    found = fit_reference(columns).assess(columns)
    assert np.isfinite(found.abnormality).all()


@pytest.mark.slow
def test_a_million_nuclei_take_little_memory() -> None:
    columns = draw(np.random.default_rng(13), 1_000_000)
    tracemalloc.start()
    try:
        found = fit_reference(columns).assess(columns)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 1_000_000
    assert peak < 100e6


def test_a_reference_is_plain_numbers() -> None:
    for count in (20, 600):
        reference = fit_reference(draw(np.random.default_rng(14), count))
        plain = json.loads(json.dumps(write_fields(reference), allow_nan=False))
        assert read_fields(Reference, plain, where="reference") == reference


def test_the_threshold_follows_how_many_are_abnormal() -> None:
    rng = np.random.default_rng(15)
    usual = rng.normal(size=10_000)
    assert false_discovery_threshold(usual) == MOST_THRESHOLD
    assert false_discovery_threshold(np.append(usual, np.full(10_000, 4.0))) == LEAST_THRESHOLD
    some = false_discovery_threshold(np.append(usual, np.full(700, 4.0)))
    assert LEAST_THRESHOLD < some < MOST_THRESHOLD
    kept = (usual > some).sum()
    assert kept / (kept + 700) < 0.12
    assert false_discovery_threshold(np.empty(0)) == MOST_THRESHOLD


@pytest.mark.parametrize("mpp", [0.5, pytest.param(0.25, marks=pytest.mark.slow)])
def test_the_planted_nuclei_of_a_phantom_are_flagged_for_what_was_planted(mpp: float) -> None:
    scene = plan_phantom(PhantomSpec(width_mm=1.5, height_mm=1.2, seed=5))
    side = round(300 / mpp)
    x, y = (round(v / mpp) - side // 2 for v in scene.tumour.centroid.coords[0])
    window = paint_window(scene, (x, y, side, side), mpp)
    planted = window.nuclei.kind == NucleusKind.ABNORMAL
    inner = _whole(window)
    place = Window(x, y, (1, 1), (mpp, mpp))
    seen = Instances(window.labels, np.ones(len(planted), np.float32))
    table = measure_nuclei(window.pixels, seen, place).choose(inner)
    table = measure_neighbours(table, (mpp, mpp))
    planted = planted[inner]
    assert 0.2 < planted.mean() < 0.8
    found = fit_reference(table.measurements).assess(table.measurements)
    hit = (found.flagged & planted).sum()
    assert hit / found.flagged.sum() >= 0.85
    assert hit / planted.sum() >= 0.85
    first = found.reasons[found.flagged & planted, 0]
    assert np.isin(first, (0, 1, 2)).all()


def _whole(window: PaintedWindow) -> NDArray[np.bool_]:
    """Nuclei that the window's edge does not cut."""
    labels = window.labels
    cut = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return ~np.isin(np.arange(1, len(window.nuclei) + 1), cut)
