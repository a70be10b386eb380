"""Imports point down only: workflows over tiling and models, those over wsi."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "wsi": {"errors", "kernels"},
    "tiling": {"errors", "wsi"},
    "models": {"errors", "kernels"},
    "workflows": {"errors", "kernels", "wsi", "tiling", "models"},
}

ONLY_IN = {
    "dask": {"workflows"},
    "distributed": {"workflows"},
    "zarr": {"workflows"},
    "typer": {"workflows"},
    "rich": {"workflows"},
    "torch": {"models", "workflows"},
    "timm": {"models"},
    "openslide": {"wsi"},
    "tifffile": {"wsi"},
    "tiatoolbox": {"models", "tiling"},
    "matplotlib": {"workflows"},
    "pandas": {"workflows"},
    "h5py": {"workflows"},
    "mapie": {"models"},
    "tensorboard": {"workflows"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for folder in MAY_IMPORT:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield folder, path


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Imported module, relative level, and whether it is imported when the file is."""
    tree = ast.parse(path.read_text())
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, 0, id(node) not in late
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, id(node) not in late


def test_there_is_something_to_check() -> None:
    assert {folder for folder, _ in modules()} == set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("folder", "path"), list(modules()), ids=lambda v: str(v).rpartition("/")[2]
)
def test_imports_point_down(folder: str, path: Path) -> None:
    for module, level, _ in imports(path):
        assert level <= 1, f"{path.name} reaches above its folder"
        parts = module.split(".")
        if level == 0 and parts[0] == "slidetriage" and len(parts) > 1:
            # Between packages of one folder; within a package imports are relative.
            beside = parts[1] == folder and parts[2:3] != [path.parent.name]
            nested = path.parent.name != folder or (ROOT / "/".join(parts[1:3])).is_dir()
            allowed = parts[1] in MAY_IMPORT[folder] or (beside and nested)
            assert allowed, f"{path.name} imports {module}"


@pytest.mark.parametrize(
    ("folder", "path"), list(modules()), ids=lambda v: str(v).rpartition("/")[2]
)
def test_each_library_has_its_folder(folder: str, path: Path) -> None:
    for module, level, _ in imports(path):
        home = ONLY_IN.get(module.split(".")[0])
        if level == 0 and home is not None:
            assert folder in home, f"{path.name} imports {module}"
    if folder != "workflows":
        assert "dask" not in path.read_text().lower(), f"{path.name} mentions Dask"


def test_tiatoolbox_is_never_imported_at_start_up() -> None:
    early = [
        path.name
        for _, path in modules()
        for module, _, at_start in imports(path)
        if at_start and module.split(".")[0] == "tiatoolbox"
    ]
    assert early == []


def test_timm_is_imported_in_one_place() -> None:
    """Without PyTorch's compiler (decision 0013)."""
    found = {
        path.name for _, path in modules() for name, _, _ in imports(path) if name[:4] == "timm"
    }
    assert found == {"lean_timm.py"}


def test_a_slide_step_fails_in_one_place_only() -> None:
    """`except Exception` stands in the station and in its decoders; bare `except` nowhere."""
    broad = []
    for _, path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                names = (
                    {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
                    if node.type
                    else {""}
                )
                if names & {"", "Exception", "BaseException"}:
                    broad.append(path.name)
    assert broad == ["serving.py", "station.py"]


def test_modules_and_functions_stay_short() -> None:
    for _, path in modules():
        text = path.read_text()
        assert len(text.splitlines()) <= 300, f"{path.name} is really two modules"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                own = lines - _docstring_lines(node) - _parameter_lines(node)
                assert own <= 50, f"{path.name}: {node.name} has {own} lines"


def _docstring_lines(node: ast.FunctionDef) -> int:
    first = node.body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (first.end_lineno or first.lineno) - first.lineno + 1 if is_text else 0


def _parameter_lines(node: ast.FunctionDef) -> int:
    return node.body[0].lineno - node.lineno
