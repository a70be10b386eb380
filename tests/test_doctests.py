"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("wsi", "tiling", "models", "workflows")


def name_of(path: Path) -> str:
    return ".".join(("slidetriage", *path.relative_to(ROOT).with_suffix("").parts))


MODULES = [
    name_of(path)
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>>" in path.read_text()
]
PACKAGES = [
    name_of(path.parent)
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("__init__.py"))
]


def test_there_are_examples() -> None:
    assert len(MODULES) >= 5


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", PACKAGES)
def test_exported_members_exist_and_are_sorted(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__doc__
    names = package.__all__
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(package, name)
