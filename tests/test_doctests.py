"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    f"slidetriage.{path.parent.name}.{path.stem}"
    for folder in ("wsi", "tiling", "models", "workflows")
    for path in sorted((ROOT / folder).glob("*.py"))
    if ">>>" in path.read_text()
]


def test_there_are_examples() -> None:
    assert len(MODULES) >= 5


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("folder", ["wsi", "tiling", "models", "workflows"])
def test_exported_members_exist_and_are_sorted(folder: str) -> None:
    package = importlib.import_module(f"slidetriage.{folder}")
    assert package.__doc__
    names = package.__all__
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(package, name)
