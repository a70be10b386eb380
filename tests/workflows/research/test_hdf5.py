"""HDF5 features: exact through each form, in each tool's own layout, and hostile files refused."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from slidetriage.errors import OutputError, UsageError
from slidetriage.workflows.research import (
    FeatureFacts,
    convert_features,
    read_features,
    read_header,
    write_features,
)
from slidetriage.workflows.research.feature_values import Form

FORMS: tuple[Form, ...] = ("zarr", "trident", "clam", "stamp")
HDF5: tuple[Form, ...] = ("trident", "clam", "stamp")

FACTS = FeatureFacts(
    encoder="resnet50-" + "a" * 64 + "-0123456789abcdef",
    tile_px=224,
    mpp=0.5,
    stride_px=200,
    slide="TCGA-1",
    slide_mpp=(0.25, 0.2505),
    slide_px=(40_000, 30_000),
    magnification=40.0,
    unreadable=1,
    key="k" * 64,
    runtimes=("openvino float32",),
)


def bag(tiles: int = 1500, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Features of every magnitude, and corners of which none is a whole number of um."""
    rng = np.random.default_rng(1)
    features = (rng.normal(size=(tiles, size)) * 10.0 ** rng.integers(-30, 30, size)).astype("f4")
    corners = rng.integers(0, 40_000, (tiles, 2)) + rng.choice([0, 0.5], (tiles, 2))
    return features, corners


def put(path: Path, form: Form, facts: FeatureFacts = FACTS, tiles: int = 1500) -> Path:
    features, corners = bag(tiles)
    parts = [features[:700], features[700:701], features[701:]]
    write_features(path, form, facts, corners, parts, feature_size=96)
    return path


def path_of(tmp_path: Path, form: Form) -> Path:
    return tmp_path / ("a.zarr" if form == "zarr" else f"{form}.h5")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tiles", [0, 1, 1500])
def test_features_come_back_exactly_from_each_form(tmp_path: Path, form: Form, tiles: int) -> None:
    path = put(path_of(tmp_path, form), form, tiles=tiles)
    features, corners = bag(tiles)
    found = read_features(path)
    np.testing.assert_array_equal(found.features, features)
    assert found.corners_px is not None
    # TRIDENT and CLAM hold whole px; STAMP's float32 um resolve 1/250 um at 10 mm.
    tolerance = {"zarr": 0, "trident": 0.5, "clam": 0.5, "stamp": 0.01}[form]
    np.testing.assert_allclose(found.corners_px, corners, rtol=0, atol=tolerance)
    header = read_header(path)
    assert (header.form, header.tiles, header.feature_size) == (form, tiles, 96)
    assert header.facts == FACTS
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_chain_through_all_forms_changes_no_feature(tmp_path: Path) -> None:
    path = put(tmp_path / "start.zarr", "zarr")
    for number, form in enumerate((*HDF5, "zarr")):
        target = tmp_path / (f"{number}.zarr" if form == "zarr" else f"{number}.h5")
        convert_features(path, target, form)  # type: ignore[arg-type]  # a Form
        path = target
    np.testing.assert_array_equal(read_features(path).features, bag()[0])
    assert read_header(path).facts == FACTS


@pytest.mark.parametrize("form", FORMS)
def test_equal_features_give_equal_bytes(tmp_path: Path, form: Form) -> None:
    def content(folder: Path) -> list[bytes]:
        folder.mkdir()
        path = put(path_of(folder, form), form)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [file.read_bytes() for file in files if file.is_file()]

    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_tridents_layout(tmp_path: Path) -> None:
    """As trident/IO.py writes it; its patcher cuts patch_size * level0 / target magnification."""
    with h5py.File(put(tmp_path / "a.h5", "trident")) as file:
        assert file["features"].dtype == np.float32
        coords, attrs = file["coords"], dict(file["coords"].attrs)
        assert coords.dtype == np.int64
        np.testing.assert_array_equal(coords[:], np.rint(bag()[1]))
    assert attrs["patch_size"] == 224
    assert attrs["level0_magnification"] == 40
    cut = attrs["patch_size"] * attrs["level0_magnification"] / attrs["target_magnification"]
    assert cut == pytest.approx(224 * 0.5 / 0.25025)
    assert attrs["patch_size_level0"] == round(cut) == 448
    assert attrs["overlap"] == 24
    assert (attrs["level0_width"], attrs["level0_height"]) == (40_000, 30_000)
    assert attrs["name"] == "TCGA-1"


def test_clams_layout(tmp_path: Path) -> None:
    with h5py.File(put(tmp_path / "a.h5", "clam")) as file:
        assert set(file) == {"features", "coords"}
        assert file["coords"].dtype == np.int32
        assert not file["coords"].attrs


def test_stamps_layout(tmp_path: Path) -> None:
    """um from the top left of the slide, along each axis by its own scale."""
    with h5py.File(put(tmp_path / "a.h5", "stamp")) as file:
        assert set(file) == {"feats", "coords"}
        um = bag()[1] * (0.25, 0.2505)
        np.testing.assert_allclose(file["coords"][:], um, rtol=1e-6)
        attrs = dict(file.attrs)
    assert attrs["unit"] == "um"
    assert attrs["tile_size_um"] == 112
    assert attrs["tile_size_px"] == 224
    assert attrs["extractor"] == FACTS.encoder
    assert attrs["feat_type"] == "tile"
    assert attrs["stamp_version"] == "2.1.0"


def test_files_of_the_tools_themselves_are_read(tmp_path: Path) -> None:
    """Made with h5py as each tool does, without anything of ours in them."""
    features = np.arange(12, dtype=np.float32).reshape(3, 4)
    coords = np.array([[0, 0], [512, 0], [0, 512]])
    with h5py.File(tmp_path / "trident.h5", "w") as file:
        for name, value in (("features", features), ("coords", coords)):
            file.create_dataset(name, data=value, maxshape=(None, *value.shape[1:]),
                                chunks=(1, *value.shape[1:]))  # fmt: skip
        file["coords"].attrs.update(
            {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40,
             "target_magnification": 20, "overlap": 0, "name": "s", "savetodir": "x"}
        )  # fmt: skip
        file["features"].attrs["savetodir"] = "y"
    with h5py.File(tmp_path / "clam.h5", "w") as file:
        file["features"], file["coords"] = features, coords.astype(np.int32)
    with h5py.File(tmp_path / "stamp.h5", "w") as file:
        file["feats"], file["coords"] = features.astype(np.float16), (coords / 2).astype("f4")
        file.attrs.update({"extractor": "uni2", "unit": "um", "tile_size_um": 256.0,
                           "tile_size_px": 224, "stamp_version": "2.4.0"})  # fmt: skip
    for form in HDF5:
        path = tmp_path / f"{form}.h5"
        header, found = read_header(path), read_features(path, slide_mpp=(0.5, 0.5))
        assert header.form == form
        assert (header.tiles, header.feature_size) == (3, 4)
        np.testing.assert_array_equal(found.features, features)
        np.testing.assert_array_equal(found.corners_px, coords)
    assert read_header(tmp_path / "trident.h5").facts == FeatureFacts(
        tile_px=256, stride_px=256, slide="s", magnification=40
    )
    stamp = read_header(tmp_path / "stamp.h5").facts
    assert (stamp.encoder, stamp.tile_px) == ("uni2", 224)
    assert stamp.mpp == pytest.approx(256 / 224)
    # STAMP's um are no px as long as nobody says how large a px is.
    assert read_features(tmp_path / "stamp.h5").corners_px is None
    with pytest.raises(UsageError, match="where its tiles are"):
        convert_features(tmp_path / "stamp.h5", tmp_path / "b.h5", "clam")
    with pytest.raises(UsageError, match="needs mpp"):
        convert_features(tmp_path / "trident.h5", tmp_path / "b.h5", "stamp")
    assert not (tmp_path / "b.h5").exists()
    convert_features(tmp_path / "stamp.h5", tmp_path / "c.h5", "trident", slide_mpp=(0.5, 0.5))
    np.testing.assert_array_equal(read_features(tmp_path / "c.h5").corners_px, coords)


def bomb(file: h5py.File) -> None:
    file.create_dataset("features", (10**7, 60_000), "f4", chunks=(1, 60_000))


def hollow(file: h5py.File) -> None:
    file.create_dataset("features", (10**6, 1000), "f4", chunks=(1, 1000))


def squeezed(file: h5py.File) -> None:
    zeros = np.zeros((200_000, 64), np.float32)
    file.create_dataset("features", data=zeros, chunks=(5000, 64), compression="gzip")


def wide_chunk(file: h5py.File) -> None:
    file.create_dataset("features", (4, 64), "f4", chunks=(10**7, 64), maxshape=(None, 64))


def strings(file: h5py.File) -> None:
    file["features"] = np.array([["a", "b"]], dtype=h5py.string_dtype())


def references(file: h5py.File) -> None:
    file["other"] = np.zeros(3)
    file["features"] = np.array([[file["other"].ref]], dtype=h5py.ref_dtype)


def compound(file: h5py.File) -> None:
    file["features"] = np.zeros((3, 2), dtype=[("a", "f4"), ("b", "f8")])


def ragged(file: h5py.File) -> None:
    file.create_dataset("features", (2, 2), h5py.vlen_dtype(np.float32))


def flat(file: h5py.File) -> None:
    file["features"] = np.zeros(5, np.float32)


def scalar(file: h5py.File) -> None:
    file["features"] = h5py.Empty("f4")


def group(file: h5py.File) -> None:
    file.create_group("features")


def external_link(file: h5py.File) -> None:
    with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
        other["features"] = np.zeros((3, 2), np.float32)
    file["features"] = h5py.ExternalLink("other.h5", "/features")


def soft_link(file: h5py.File) -> None:
    file["features"] = h5py.SoftLink("/features")


def external_data(file: h5py.File) -> None:
    file.create_dataset("features", (2, 2), "f4", external=[("/etc/passwd", 0, 16)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 2), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (2, 2))
    file.create_virtual_dataset("features", layout)


def not_finite(file: h5py.File) -> None:
    file["features"] = np.array([[1, np.nan]], np.float32)


def other_coords(file: h5py.File) -> None:
    file["features"], file["coords"] = np.zeros((3, 2), np.float32), np.zeros((4, 2))


def nothing(file: h5py.File) -> None:
    file["images"] = np.zeros((3, 2))


HOSTILE = (
    bomb, hollow, squeezed, wide_chunk, strings, references, compound, ragged, flat, scalar, group,
    external_link, soft_link, external_data, virtual, not_finite, other_coords, nothing,
)  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_a_hostile_file_is_refused(tmp_path: Path, make: Callable[[h5py.File], None]) -> None:
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w") as file:
        make(file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError) as caught:
        read_features(path)
    assert caught.value.code == "E_FEATURES"
    assert str(path) in str(caught.value)
    assert caught.value.mend
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 200_000


@pytest.mark.parametrize("form", HDF5)
def test_damage_anywhere_is_told(tmp_path: Path, form: Form) -> None:
    """A changed byte of an array fails its checksum; a file cut short does not open."""
    path = put(tmp_path / "a.h5", form)
    whole = path.read_bytes()
    at = whole.index(bag()[0][3].tobytes())
    cases = [whole[: len(whole) // 2], b"", b"no features", whole[:at] + b"\xff" + whole[at + 1 :]]
    for case in cases:
        path.write_bytes(case)
        with pytest.raises(UsageError) as caught:
            read_features(path)
        assert caught.value.code == "E_FEATURES"


def test_bytes_of_chance_never_end_in_anything_but_a_clear_error(tmp_path: Path) -> None:
    """In a process of its own: a crash of the library would be seen."""
    put(tmp_path / "a.h5", "trident", tiles=40)
    code = f"""
import random
from pathlib import Path
from slidetriage.errors import UsageError
from slidetriage.workflows.research import read_features, read_header
path = Path({str(tmp_path)!r}) / "b.h5"
whole = (Path({str(tmp_path)!r}) / "a.h5").read_bytes()
rng = random.Random(5)
for _ in range(100):
    data = bytearray(whole)
    for _ in range(rng.choice([1, 4, 60])):
        data[rng.randrange(min(len(data), 6000))] = rng.randrange(256)
    path.write_bytes(data)
    try:
        read_header(path)
        read_features(path)
    except UsageError:
        pass
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_heap_that_the_library_would_never_leave_is_refused(tmp_path: Path) -> None:
    """One byte makes the second text 245 bytes long; behind it lies free space of no size."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["feats"] = np.zeros((3, 2), np.float32)
        file.attrs["unit"], file.attrs["extractor"] = "um", "uni2"
    assert read_header(path).facts.encoder == "uni2"
    content = bytearray(path.read_bytes())
    second = content.index(b"GCOL") + 16 + 24
    assert content[second] == 2
    assert content[second + 8] == len("uni2")
    content[second + 8] = 245
    path.write_bytes(content)
    code = f"""
from pathlib import Path
from slidetriage.errors import UsageError
from slidetriage.workflows.research import read_header
try:
    read_header(Path({str(path)!r}))
except UsageError as error:
    print(error.code, error)
"""
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert said.startswith("E_FEATURES")
    assert "heap" in said


@pytest.mark.parametrize("form", FORMS)
def test_what_is_there_is_never_written_over(tmp_path: Path, form: Form) -> None:
    path = put(path_of(tmp_path, form), form)
    with pytest.raises(OutputError, match="there already"):
        put(path, form)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("form", FORMS)
def test_nothing_half_written_stays(tmp_path: Path, form: Form) -> None:
    features, corners = bag()

    def parts() -> object:
        yield features[:1000]
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_features(path_of(tmp_path, form), form, FACTS, corners, parts(), feature_size=96)  # type: ignore[arg-type]  # yields parts
    assert list(tmp_path.iterdir()) == []
