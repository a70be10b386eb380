"""A bag in parts against the same bag as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slidetriage.errors import ModelError, UsageError
from slidetriage.models import Bag, BagPrediction, Bundle, SlideHead, load_bundle
from slidetriage.models.heads import build_head, list_heads
from slidetriage.models.streaming import ROWS, AttentionPool, HeadStream

FEATURES = 24
POOLS = ("mean", "max")


def make_head(kind: str = "gated_attention", *, tile_classifier: bool = True) -> SlideHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        sizes = {"hidden": 16, "attention": 8} if kind.endswith("attention") else {}
        model = SlideHead(build_head(kind, FEATURES, 1, **sizes), tile_classifier=tile_classifier)
        model.mean.normal_()
        model.sd.uniform_(0.5, 2)
    for name, weights in model.named_parameters():
        if name == "head.attend.weigh.weight":  # logits far apart: attention is anything but even
            weights.data *= 20
    return model.eval()


def make_bag(count: int, size: int = FEATURES, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, count])
    return (3 * rng.normal(size=(count, size))).astype(np.float32)


def cut(bag: np.ndarray, size: int) -> list[np.ndarray]:
    return [bag[start : start + size] for start in range(0, len(bag), size)]


def stream(head: SlideHead, parts: list[np.ndarray]) -> BagPrediction:
    fed = HeadStream(head, torch.device("cpu"))
    for part in parts:
        fed.feed(part)
    return fed.finish()


def as_bytes(prediction: BagPrediction) -> tuple[float, bytes, bytes]:
    attention, scores = prediction.attention, prediction.tile_scores
    return prediction.probability, attention.tobytes(), scores.tobytes()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3 * ROWS + 5), st.integers(0, 2**32 - 1))
def test_agrees_with_the_head_on_the_whole_bag(count: int, seed: int) -> None:
    head, bag = make_head(), make_bag(count, seed=seed)
    with torch.inference_mode():
        whole = head(torch.from_numpy(bag)[None], torch.ones(1, count, dtype=torch.bool))
    got = stream(head, [bag])
    assert got.probability == pytest.approx(float(whole.slide_logit.sigmoid()), abs=1e-6)
    np.testing.assert_allclose(got.attention, whole.attention[0], atol=1e-6)
    with torch.inference_mode():
        tiles = head.tile(torch.from_numpy(bag)).sigmoid()[:, 0]
    np.testing.assert_allclose(got.tile_scores, tiles, atol=1e-6)
    assert got.attention.dtype == got.tile_scores.dtype == np.float32
    assert got.attention.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, ROWS - 1, ROWS, ROWS + 1, 700])
def test_parts_of_any_size_give_the_same_bytes(count: int) -> None:
    head, bag = make_head(), make_bag(count)
    want = as_bytes(stream(head, [bag]))
    for size in (1, 2, 7, 64, ROWS - 1, ROWS, ROWS + 1, 699):
        assert as_bytes(stream(head, cut(bag, size))) == want, size


@pytest.mark.parametrize("kind", list_heads())
@pytest.mark.parametrize("tile_classifier", [True, False])
def test_every_head_streams_and_says_what_it_says_of_the_whole(
    kind: str, tile_classifier: bool
) -> None:
    head, bag = make_head(kind, tile_classifier=tile_classifier), make_bag(ROWS + 44)
    with torch.inference_mode():
        whole = head(torch.from_numpy(bag)[None], torch.ones(1, len(bag), dtype=torch.bool))
        plain = whole.tile_logit[0] if head.tile is None else head.tile(torch.from_numpy(bag))
    got = stream(head, cut(bag, 100))
    assert got.probability == pytest.approx(float(whole.slide_logit.sigmoid()), abs=1e-5)
    np.testing.assert_allclose(got.attention, whole.attention[0], atol=1e-5)
    np.testing.assert_allclose(got.tile_scores, plain[:, 0].sigmoid(), atol=1e-5)
    assert got.tile_scores.std() > 1e-4
    assert head.tile_wise is (tile_classifier or kind.endswith("attention") or kind in POOLS)
    if head.tile_wise:
        np.testing.assert_allclose(stream(head, [bag[:9]]).tile_scores, got.tile_scores[:9], 1e-5)
    assert as_bytes(stream(head, [bag])) == as_bytes(got)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=9), min_size=1),
    st.randoms(use_true_random=False),
)
def test_pool_is_the_softmax_mean(blocks: list[list[float]], random: object) -> None:
    logits = [np.array(block, np.float32) for block in blocks]
    vectors = [np.cos(np.arange(3) * block[:, None]).astype(np.float32) for block in logits]
    pool = AttentionPool()
    for pair in zip(logits, vectors, strict=True):
        pool.add(*pair)
    every = np.concatenate(logits).astype(np.float64)
    weights = np.exp(every - every.max())
    weights /= weights.sum()
    np.testing.assert_allclose(pool.attention(), weights, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(pool.mean(), weights @ np.concatenate(vectors), atol=1e-9)


def test_an_empty_pool_has_no_mean() -> None:
    with pytest.raises(ValueError, match="nothing"):
        AttentionPool().mean()


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


def test_tiles_that_were_not_read_are_left_out(bundle: Bundle) -> None:
    bag = make_bag(400, 256)
    read = np.ones(400, bool)
    read[[0, 5, 399]] = False
    read[128:192] = False  # a whole part
    unread = np.where(read[:, None], bag, np.float32(np.nan))
    got = bundle.predict_stream(iter(cut(unread, 64)))
    want = bundle.predict(Bag(bag[read], np.zeros((read.sum(), 2), np.float32)))
    assert got.probability == want.probability
    for some, all_read in (
        (got.attention, want.attention),
        (got.tile_scores, want.tile_scores),
    ):
        assert some[read].tobytes() == all_read.tobytes()
        assert np.isnan(some[~read]).all()
    assert want.tile_scores.tobytes() == bundle.score_features(bag[read]).tobytes()


def test_holds_one_part_at_a_time(bundle: Bundle) -> None:
    """Each part is overwritten by the next; a bundle that kept one would see other numbers."""
    bag = make_bag(300, 256)
    room = np.empty((50, 256), np.float32)

    def lend() -> object:
        for part in cut(bag, 50):
            room[:] = part
            yield room

    assert as_bytes(bundle.predict_stream(lend())) == as_bytes(bundle.predict_stream([bag]))  # type: ignore[arg-type]  # a generator of arrays


@pytest.mark.parametrize("parts", [[], [0], [0, 0]])
def test_no_tile_read_is_an_error(bundle: Bundle, parts: list[int]) -> None:
    with pytest.raises(ModelError, match="bag is empty"):
        bundle.predict_stream(np.zeros((rows, 256), np.float32) for rows in parts)
    with pytest.raises(ModelError, match="bag is empty"):
        bundle.predict_stream([np.full((3, 256), np.nan, np.float32)])


def test_infinite_features_are_an_error_and_other_sizes_are(bundle: Bundle) -> None:
    good = make_bag(10, 256)
    bad = good.copy()
    bad[3, 7] = np.inf
    with pytest.raises(ModelError, match="features") as caught:
        bundle.predict_stream([good, bad])
    assert caught.value.code == "E_MODEL_NAN"
    with pytest.raises(UsageError, match="N x 256"):
        bundle.predict_stream([good, good[:, :255]])


def test_a_head_that_overflows_is_an_error(bundle: Bundle) -> None:
    with torch.no_grad():
        bundle.head.head.embed.weight.fill_(1e38)
    with pytest.raises(ModelError, match="impossible numbers"):
        bundle.predict_stream([np.abs(make_bag(10, 256))])
