"""Ids are safe anywhere, and keys change with everything they depend on."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slidetriage.workflows.identity import result_key, slide_id, slug


@given(st.text(max_size=300))
def test_a_slug_is_safe_whatever_the_name(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,59}|[A-Za-z0-9]", slug(name))
    assert ".." not in slide_id("..", "0" * 64)


@pytest.mark.parametrize("name", ["../../etc/passwd", "..\\..\\x", "\0", "~", "-rf", "CON"])
def test_hostile_names_become_plain_ones(name: str) -> None:
    made = slide_id(name, "ab" * 32)
    assert "/" not in made
    assert "\\" not in made
    assert not made.startswith((".", "-", "~"))
    assert made.endswith("-abababababab")


def test_the_key_depends_on_content_model_and_parameters() -> None:
    base = result_key("s", "m", {"a": 1, "b": 2})
    assert base == result_key("s", "m", {"b": 2, "a": 1})
    others = [
        result_key("t", "m", {"a": 1, "b": 2}),
        result_key("s", "n", {"a": 1, "b": 2}),
        result_key("s", "m", {"a": 1, "b": 3}),
    ]
    assert len({base, *others}) == 4
