"""Where bundles lie, and what tells one from every other; without torch, which takes seconds."""

from __future__ import annotations

import hashlib
from pathlib import Path

from slidetriage.errors import ModelError

from .card import read_card
from .weight_files import read_verified

_SHIPPED = Path(__file__).with_name("bundles")


def list_bundles() -> tuple[str, ...]:
    """Names of the bundles that come with slidetriage, sorted."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob("*/card.json")))


def find_bundle(name_or_path: str | Path) -> Path:
    """The directory of a shipped bundle, or the one given; raises `ModelError` where none is."""
    if isinstance(name_or_path, str) and name_or_path in list_bundles():
        return _SHIPPED / name_or_path
    directory = Path(name_or_path)
    if not directory.is_dir():
        raise ModelError(
            f"There is no bundle {str(name_or_path)!r}.",
            mend=f"Give a directory, or one of: {', '.join(list_bundles())}.",
        )
    return directory


def combine(card: bytes, weights_sha256: str) -> str:
    """A bundle's identity: SHA-256 over the bytes of its card and its weights."""
    return hashlib.sha256(hashlib.sha256(card).digest() + bytes.fromhex(weights_sha256)).hexdigest()


def identify_bundle(name_or_path: str | Path) -> str:
    """The identity of a bundle that can be loaded.

    Card and weights of a shipped one are compared with each other and not built, since every
    shipped one is known to build. Another is loaded, so that what is wrong with it is said here.
    Raises `ModelError` as `load_bundle` does.
    """
    directory = find_bundle(name_or_path)
    if directory.parent != _SHIPPED:
        from .store import load_bundle

        return load_bundle(directory).identity
    card, text = read_card(directory / "card.json")
    _, sha256 = read_verified(directory / card.weights.file, sha256=card.weights.sha256)
    return combine(text, sha256)
