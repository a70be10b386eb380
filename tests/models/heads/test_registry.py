"""Heads by name: what is built, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest

from slidetriage.errors import UsageError
from slidetriage.models.heads import (
    HEADS,
    AttentionHead,
    ClamHead,
    PoolingHead,
    build_head,
    head_arguments,
    list_heads,
)


def test_names_settle_the_variant() -> None:
    gated = build_head("gated_attention", 4, 1)
    assert isinstance(gated, AttentionHead)
    assert gated.attend.gate is not None
    plain = build_head("attention", 4, 1)
    assert isinstance(plain, AttentionHead)
    assert plain.attend.gate is None
    many = build_head("clam_mb", 4, 3)
    assert isinstance(many, ClamHead)
    assert many.branches == 3
    single = build_head("clam_sb", 4, 3)
    assert isinstance(single, ClamHead)
    assert single.branches == 1
    largest = build_head("max", 4, 1, hidden=3)
    assert isinstance(largest, PoolingHead)
    assert (largest.pool, largest.embedding_size) == ("max", 3)


def test_list_is_sorted_and_whole() -> None:
    assert list_heads() == sorted(HEADS)
    assert len(HEADS) == 9


def test_arguments_are_those_of_the_paper() -> None:
    assert head_arguments("clam_sb") == {
        "hidden": 512,
        "attention": 256,
        "dropout": 0.25,
        "sampled": 8,
        "subtyping": False,
        "instance_loss": "svm",
    }
    assert head_arguments("transmil") == {
        "hidden": 512,
        "heads": 8,
        "landmarks": None,
        "dropout": 0.1,
    }


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("abmil", {}, r"no head 'abmil'.*Choose one of attention, clam_mb"),
        ("mean", {"gated": True}, r"head mean takes no gated.*It takes hidden, dropout"),
        ("mean", {"pool": "max"}, r"takes no pool"),
        ("gated_attention", {"gated": False}, r"takes no gated"),
        ("mean", {"hidden": 0}, r"hidden must be a whole number above 0, not 0"),
        ("mean", {"hidden": 2.5}, r"not 2.5"),
        ("mean", {"hidden": True}, r"not True"),
        ("attention", {"attention": "128"}, r"attention must be .*'128'"),
        ("attention", {"dropout": 1.0}, r"dropout must be .* not 1.0"),
        ("attention", {"dropout": float("nan")}, r"not nan"),
        ("clam_sb", {"dropout": "0.25"}, r"'0.25'"),
        ("clam_sb", {"instance_loss": "hinge"}, r"no instance loss 'hinge'.*svm or ce"),
        ("clam_sb", {"sampled": -1}, r"sampled must be"),
        ("clam_sb", {"subtyping": "no"}, r"subtyping of the head clam_sb must be true or false"),
        ("dsmil", {"query": 0}, r"query must be"),
        ("dsmil", {"dropout": -0.1}, r"dropout must be"),
        ("nnmil", {"sampled": 0}, r"sampled must be"),
        ("transmil", {"heads": 7}, r"512 numbers cannot be parted into 7 heads"),
        ("transmil", {"landmarks": 0}, r"landmarks must be"),
    ],
)
def test_bad_requests_say_what_is_wrong(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_head(name, 384, 2, **arguments)


@pytest.mark.parametrize(("features", "outputs"), [(0, 1), (384, 0), (384, -2), (3.0, 1)])
def test_bad_sizes_are_refused(features: Any, outputs: Any) -> None:
    with pytest.raises(UsageError, match=r"(features|outputs) must be a whole number above 0"):
        build_head("mean", features, outputs)
