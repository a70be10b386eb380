"""The wheel holds what the folders hold, and works away from them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("wsi", "tiling", "models", "workflows")


def test_every_folder_with_code_is_mapped_and_linked() -> None:
    mapped = SETTINGS["tool"]["setuptools"]["package-dir"]
    holding = {
        path.parent.relative_to(ROOT) for name in FOLDERS for path in (ROOT / name).rglob("*.py")
    }
    assert {Path(folder) for folder in mapped.values()} == holding | {Path("src/slidetriage")}
    assert sorted(mapped) == sorted(SETTINGS["tool"]["setuptools"]["packages"])
    for name in FOLDERS:
        link = ROOT / "src" / "slidetriage" / name
        assert link.is_symlink(), f"{link} must be a link"
        assert os.readlink(link) == f"../../{name}"
    assert not (ROOT / "slidetriage").exists(), "it would shadow the package"


def test_the_lock_is_hashed_and_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    for part in (text, (ROOT / "requirements-headless.lock").read_text()):
        assert "://" not in part
        assert "--index" not in part
        assert "--find-links" not in part
        assert "--hash=sha256:" in part
    pins = re.findall(r"^[a-z0-9].*==\S+", text, re.MULTILINE | re.IGNORECASE)
    hashed = re.findall(r"==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text)
    assert len(pins) == len(hashed) > 100


def test_the_lock_pins_extras_as_they_are_asked_for() -> None:
    """Else the pip of Python 3.11 takes the newest release for `coverage[toml]`, without a hash."""
    pins = re.findall(r"^(\S.*)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    locked = {canonicalize_name(r.name): r.extras for r in map(Requirement, pins)}
    asked = 0
    for name in locked:
        for need in map(Requirement, requires(name) or ()):
            if need.extras and (need.marker is None or need.marker.evaluate({"extra": ""})):
                assert need.extras <= locked[canonicalize_name(need.name)], f"{name}: {need}"
                asked += 1
    assert asked > 3


def test_importing_the_package_is_quick_and_loads_no_heavy_library() -> None:
    code = (
        "import sys, slidetriage\n"
        "heavy = {'torch', 'tiatoolbox', 'timm', 'distributed', 'zarr'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(slidetriage.__all__) <= set(dir(slidetriage))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_nothing_needs_the_libraries_of_a_screen() -> None:
    """A bare machine has no libGL, so the headless OpenCV lies over TIAToolbox's."""
    code = (
        "import slidetriage.wsi, slidetriage.tiling, sys\n"
        "assert 'cv2' not in sys.modules\n"
        "import cv2\n"
        "maps = open('/proc/self/maps').read()\n"
        "assert 'cv2' in maps and 'libGL' not in maps and 'libX11' not in maps\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_running_never_imports_tiatoolbox_unless_asked() -> None:
    code = (
        "import sys, slidetriage.workflows.cli, slidetriage.workflows.preload\n"
        "import slidetriage.workflows.cells.preload\n"
        "assert 'torch' in sys.modules and 'tiatoolbox' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout, so that nothing is left in it."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).exists():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                target.symlink_to(os.readlink(ROOT / name))
            else:
                target.write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--wheel-dir", str(out), str(source)], check=True, capture_output=True
    )
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_the_bundle(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for name in FOLDERS:
        for path in (ROOT / name).rglob("*.py"):
            assert f"slidetriage/{path.relative_to(ROOT)}" in held
    for wanted in (
        "slidetriage/py.typed",
        "slidetriage/models/bundles/breast-idc-scout/card.json",
        "slidetriage/models/bundles/breast-idc-scout/weights.safetensors",
        "slidetriage/models/detectors/nuclei-he/card.json",
        "slidetriage/models/detectors/nuclei-he/weights.safetensors",
        "slidetriage/workflows/schemas/qupath-geojson.schema.json",
    ):
        assert wanted in held
    assert not {name for name in held if name.split("/")[0] in FOLDERS}


@pytest.mark.slow
def test_the_wheel_runs_the_demo_from_elsewhere(wheel: Path, tmp_path: Path) -> None:
    """A fresh environment that borrows the installed dependencies, but not this checkout."""
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    borrowed = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    site = home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    # A path file lists the dependencies after the wheel; editable finders need a .pth to start.
    (site / "dependencies.pth").write_text(f"{borrowed}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = "import slidetriage.models as m; print(m.__file__)"
    found = subprocess.run(
        [str(python), "-c", where], check=True, capture_output=True, text=True, cwd=elsewhere
    ).stdout
    assert str(site) in found
    for engine in ("serial", "dask"):
        done = subprocess.run(
            [str(python), "-c", "from slidetriage.workflows.cli import main; main()", "demo",
             "--out", f"demo-{engine}", "--engine", engine],
            check=False, capture_output=True, text=True, cwd=elsewhere,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (elsewhere / f"demo-{engine}" / "worklist.csv").exists()
