"""What tells a bundle from every other, found without building it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slidetriage.errors import ModelError
from slidetriage.models import folders, list_bundles, load_bundle
from slidetriage.models.folders import find_bundle, identify_bundle


@pytest.mark.parametrize("name", list_bundles())
def test_a_shipped_bundle_is_identified_as_it_is_loaded(name: str) -> None:
    assert identify_bundle(name) == load_bundle(name).identity
    assert identify_bundle(find_bundle(name)) == load_bundle(name).identity


def test_ones_own_bundle_is_loaded_so_that_what_is_wrong_is_said(bundle_path: Path) -> None:
    assert identify_bundle(bundle_path) == load_bundle(bundle_path).identity
    card = json.loads((bundle_path / "card.json").read_text())
    card["head"]["arguments"] = {"no_such": 1}
    (bundle_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="no_such"):
        identify_bundle(bundle_path)


def test_a_shipped_bundle_that_was_damaged_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = list_bundles()[0]
    shutil.copytree(find_bundle(name), tmp_path / name)
    monkeypatch.setattr(folders, "_SHIPPED", tmp_path)
    assert len(identify_bundle(name)) == 64
    weights = tmp_path / name / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match="not the file its card names"):
        identify_bundle(name)
    with pytest.raises(ModelError, match="no bundle"):
        identify_bundle("no-such-bundle")


def test_to_identify_a_shipped_bundle_takes_no_torch() -> None:
    code = (
        "import sys\n"
        "from slidetriage.models.folders import identify_bundle\n"
        f"identify_bundle({list_bundles()[0]!r})\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")
