"""Agreement of label images, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slidetriage.errors import UsageError
from slidetriage.models.nuclei.matching import compare_labels

labels = arrays(np.int32, (6, 7), elements=st.integers(0, 4))


def row(*numbers: int) -> np.ndarray:
    return np.array([numbers], np.int32)


def test_one_matched_one_missed_one_invented() -> None:
    true = row(1, 1, 1, 1, 0, 2, 2, 0, 0, 0)
    found = row(0, 7, 7, 7, 0, 0, 0, 0, 9, 9)
    seen = compare_labels(true, found)
    assert (seen.true, seen.found, seen.matched) == (2, 2, 1)
    assert seen.f1 == pytest.approx(0.5)
    assert seen.precision == seen.recall == pytest.approx(0.5)
    assert seen.segmentation_quality == pytest.approx(0.75)
    assert seen.panoptic_quality == pytest.approx(0.375)
    # Shared 3; of either 4, the missed 2 and the invented 2.
    assert seen.aji == pytest.approx(3 / 8)


def test_overlap_of_exactly_the_threshold_is_no_match() -> None:
    seen = compare_labels(row(1, 1), row(1, 0))
    assert seen.matched == 0
    assert seen.panoptic_quality == 0
    assert seen.aji == pytest.approx(0.5)


def test_two_nuclei_found_as_one() -> None:
    seen = compare_labels(row(1, 1, 1, 2, 2), row(3, 3, 3, 3, 3))
    assert seen.matched == 1
    assert seen.overlap == pytest.approx(0.6)
    assert seen.f1 == pytest.approx(2 / 3)
    # The found one is the best for both: (3 + 2) shared of (5 + 5).
    assert seen.aji == pytest.approx(0.5)


def test_a_stricter_threshold() -> None:
    true, found = row(1, 1, 1, 1), row(1, 1, 1, 0)
    assert compare_labels(true, found, threshold=0.7).matched == 1
    assert compare_labels(true, found, threshold=0.75).matched == 0


def test_nothing_found_where_nothing_is() -> None:
    none = row(0, 0, 0)
    seen = compare_labels(none, none)
    assert (seen.f1, seen.panoptic_quality, seen.aji) == (1, 1, 1)
    assert compare_labels(none, row(1, 1, 0)).f1 == 0
    assert compare_labels(row(1, 1, 0), none).aji == 0


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be compared"):
        compare_labels(row(1), row(1, 0))
    with pytest.raises(UsageError, match=r"at least 0\.5"):
        compare_labels(row(1), row(1), threshold=0.4)


@given(labels)
def test_an_image_agrees_with_itself_whatever_its_numbers(image: np.ndarray) -> None:
    seen = compare_labels(image, np.where(image > 0, 100 - image, 0))
    assert seen.f1 == seen.panoptic_quality == seen.aji == 1


@given(labels, labels)
def test_against_a_plain_count(true: np.ndarray, found: np.ndarray) -> None:
    seen = compare_labels(true, found)
    pairs = []
    total = shared = 0
    best_of = set()
    for a in np.unique(true[true > 0]):
        candidates = []
        for b in np.unique(found[found > 0]):
            both = np.sum((true == a) & (found == b))
            either = np.sum((true == a) | (found == b))
            if both:
                candidates.append((both / either, both, either, b))
            if both / either > 0.5:
                pairs.append(both / either)
        if candidates:
            most = max(share for share, *_ in candidates)
            _, both, either, b = next(c for c in candidates if c[0] == most)
            shared, total = shared + both, total + either
            best_of.add(b)
        else:
            total += np.sum(true == a)
    total += sum(np.sum(found == b) for b in np.unique(found[found > 0]) if b not in best_of)
    assert seen.matched == len(pairs)
    assert seen.overlap == pytest.approx(sum(pairs))
    assert seen.aji == pytest.approx(shared / total if total else 1)
