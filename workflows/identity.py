"""Names that cannot collide: a slide's id from its content, a result's key from all it needs."""

from __future__ import annotations

import hashlib
import re
import unicodedata

import orjson

SCHEMA_VERSION = 3
"""Of result.json and manifest.json; part of the key, so a new layout never passes as the old."""

_LONGEST_SLUG = 60


def slug(name: str) -> str:
    """A name that is safe as a folder on every system, and still recognised by its owner.

    >>> slug("Müller 7/2 (HE).svs")
    'Muller-7-2-HE-.svs'
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip(".-_ ")
    return safe[:_LONGEST_SLUG] or "slide"


def slide_id(name: str, sha256: str) -> str:
    """`name` made safe, and the first 12 hex digits of the slide's content hash."""
    return f"{slug(name)}-{sha256[:12]}"


def result_key(sha256: str, model: str, parameters: dict[str, object]) -> str:
    """sha256 over everything a result depends on: content, model, parameters, schema."""
    record = {
        "schema": SCHEMA_VERSION,
        "slide": sha256,
        "model": model,
        "parameters": parameters,
    }
    return hashlib.sha256(orjson.dumps(record, option=orjson.OPT_SORT_KEYS)).hexdigest()
