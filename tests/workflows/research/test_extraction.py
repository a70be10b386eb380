"""Features of many slides: the same bytes from every engine, a row for each, nothing half-done."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from safetensors.torch import save_file

from slidetriage import Resources, Settings, load_bundle, triage
from slidetriage.errors import ModelError, OutputError, UsageError
from slidetriage.models import EncoderCard, TileEncoder, load_encoder, random_encoder
from slidetriage.models.fields import write_fields
from slidetriage.models.precision import Device
from slidetriage.tiling import TileBatch, read_tiles
from slidetriage.workflows.observers import Silent
from slidetriage.workflows.research import (
    BundleEncoder,
    EncoderFile,
    Extraction,
    FeaturesReport,
    FileEncoder,
    MadeEncoder,
    TileCard,
    extract_features,
    open_bags,
    read_features,
    read_header,
)
from slidetriage.workflows.research.feature_values import Form
from slidetriage.workflows.steps import SlidePlan
from slidetriage.workflows.surveying import survey_slide
from slidetriage.wsi import open_reader, open_slide
from tiny_slides import gradient, write_tiff, zero_tiles
from trees import tree

Find = Callable[[str], Path]
SERIAL = Resources("serial")
SCOUT = BundleEncoder("breast-idc-scout")
FORMS: tuple[Form, ...] = ("zarr", "trident", "clam", "stamp")


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "features.csv").open(newline="") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def slides(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Tissue, glass, and no slide at all."""
    folder = tmp_path_factory.mktemp("slides")
    shutil.copy(phantom, folder / "tissue.tif")
    write_tiff(folder / "glass.tif", np.full((1500, 1500, 3), 244, np.uint8), mpp=1.0)
    (folder / "text.svs").write_text("no slide")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FileEncoder:
    """An encoder that is quick to compile, with random weights."""
    half = (0.5, 0.5, 0.5)
    card = EncoderCard("test_efficientnet", {}, "default", 256, 32, "bilinear", half, half)
    folder = tmp_path_factory.mktemp("tiny")
    state = random_encoder(card, seed=1).backbone.state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "weights.safetensors")
    told = EncoderFile(1, TileCard("tiny", 4.0, (0.1, 5.0), 50), card, "")
    (folder / "tiny.json").write_bytes(orjson.dumps(write_fields(told)))
    return FileEncoder(folder / "tiny.json", folder / "weights.safetensors")


@pytest.fixture(scope="module")
def extracted(slides: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the serial engine gives."""
    out = tmp_path_factory.mktemp("out")
    report = extract_features(slides, out, Extraction(SCOUT), resources=SERIAL)
    assert report.counts == {
        "planned": 3, "done": 2, "gaps": 0, "rejected": 1, "failed": 0, "pending": 0,
    }  # fmt: skip
    assert not report.complete
    assert isinstance(report, FeaturesReport)
    assert report.encoder == load_bundle("breast-idc-scout").encoder.identifier
    return out


def test_features_are_those_of_the_tiles(slides: list[Path], extracted: Path) -> None:
    """Computed apart: the tiles of the survey, read in one batch and encoded by the bundle."""
    bundle = load_bundle("breast-idc-scout", device=Device("cpu", threads=1))
    slide = open_slide(slides[2])
    tiles = survey_slide(open_reader(slide), bundle.card, Settings()).tiles
    reader = open_reader(slide)
    pixels = read_tiles(reader, TileBatch(slide, tiles, 0))
    reader.close()
    found = read_features(extracted / "tissue.zarr")
    np.testing.assert_array_equal(found.features, bundle.encode(pixels.images))
    np.testing.assert_array_equal(found.corners_px, tiles.boxes[:, :2])
    facts = read_header(extracted / "tissue.zarr").facts
    assert facts.encoder == bundle.encoder.identifier
    assert (facts.mpp, facts.tile_px, facts.stride_px) == (4.0, 50, 50)
    assert facts.slide_mpp == (2.0, 2.0)
    assert facts.slide == "tissue"


def test_every_slide_has_its_row(slides: list[Path], extracted: Path) -> None:
    rows = table(extracted)
    assert sorted(rows) == ["glass", "text", "tissue"]
    tiles = read_header(extracted / "tissue.zarr").tiles
    assert tiles > 50
    row = rows["tissue"]
    assert (row["state"], row["features"], row["tiles"]) == ("DONE", "tissue.zarr", str(tiles))
    assert (row["mpp"], row["tile_px"], row["path"]) == ("4.0", "50", str(slides[2]))
    assert row["encoder"] == read_header(extracted / "tissue.zarr").facts.encoder
    assert (rows["glass"]["state"], rows["glass"]["tiles"]) == ("DONE", "0")
    assert "no tissue" in rows["glass"]["message"]
    assert (rows["text"]["state"], rows["text"]["code"]) == ("REJECTED", "E_NOT_SLIDE")
    assert rows["text"]["features"] == ""
    assert sorted(path.name for path in extracted.iterdir()) == [
        "features.csv", "glass.zarr", "tissue.zarr",
    ]  # fmt: skip
    assert open_bags(extracted, ["glass", "tissue"]).tiles("glass") == 0


@pytest.mark.parametrize("form", FORMS)
def test_batches_are_not_seen_in_the_features(
    slides: list[Path], tiny: FileEncoder, tmp_path: Path, form: Form
) -> None:
    settings = {"a": Settings(), "b": Settings(batch_tiles=7)}
    name = "tissue.zarr" if form == "zarr" else "tissue.h5"
    for out, each in settings.items():
        extraction = Extraction(tiny, form)
        extract_features(slides[2], tmp_path / out, extraction, settings=each, resources=SERIAL)
    one, other = (read_features(tmp_path / out / name) for out in settings)
    assert one.features.shape == (read_header(tmp_path / "a" / name).tiles, 256)
    assert len(one) > 50
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.corners_px, other.corners_px)


def test_every_engine_gives_the_same_bytes(
    data: Find, slides: list[Path], tiny: FileEncoder, tmp_path: Path
) -> None:
    """On a real slide, a painted one, glass, and no slide; in the table as well."""
    given = [*slides, data("slides/CMU-1-Small-Region.svs")]
    for engine in (SERIAL, Resources("dask", workers=2)):
        out = tmp_path / engine.engine
        report = extract_features(given, out, Extraction(tiny, "stamp"), resources=engine)
        assert report.counts["done"] == 3
    serial = tree(tmp_path / "serial")
    assert set(serial) == {"CMU-1-Small-Region.h5", "features.csv", "glass.h5", "tissue.h5"}
    assert tree(tmp_path / "dask") == serial


class Counting(Silent):
    """Counts the slides that were planned anew."""

    def __init__(self) -> None:
        self.count = 0

    def planned(self, plan: SlidePlan) -> None:
        del plan
        self.count += 1


@pytest.mark.parametrize("form", ["zarr", pytest.param("clam", marks=pytest.mark.slow)])
def test_what_is_done_is_not_done_again(
    slides: list[Path], tiny: FileEncoder, tmp_path: Path, form: Form
) -> None:
    extraction = Extraction(tiny, form)

    def extract(settings: Settings | None = None) -> int:
        watcher = Counting()
        extract_features(
            slides, tmp_path, extraction, settings=settings, resources=SERIAL, watcher=watcher
        )
        return watcher.count

    assert extract() == 2
    before = tree(tmp_path)
    assert extract() == 0
    assert tree(tmp_path) == before
    # Other settings: what is there stays, what is new stands beside it.
    assert extract(Settings(overlap=0.5)) == 2
    assert before.items() - tree(tmp_path).items() == {("features.csv", before["features.csv"])}
    row = table(tmp_path)["tissue"]
    assert row["features"].startswith("tissue-")
    assert read_header(tmp_path / row["features"]).facts.stride_px == 25
    # Damage is found, and the slide done again.
    damaged = next(p for p in (tmp_path / row["features"]).rglob("*/0/0") if "features" in str(p)) \
        if form == "zarr" else tmp_path / row["features"]  # fmt: skip
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(content)
    assert extract(Settings(overlap=0.5)) == 1
    assert len(read_features(tmp_path / table(tmp_path)["tissue"]["features"])) > 0


def test_slides_of_one_name_do_not_collide(
    phantom: Path, tiny: FileEncoder, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    shutil.copy(phantom, tmp_path / "a" / "slide.tif")
    write_tiff(tmp_path / "b" / "slide.tif", gradient(900, 900), mpp=2.0)
    shutil.copy(phantom, tmp_path / "c" / "slide.tif")
    paths = [tmp_path / name / "slide.tif" for name in ("a", "b", "c")]
    report = extract_features(paths, tmp_path / "out", Extraction(tiny), resources=SERIAL)
    assert report.complete
    files = [row.outcome.directory for row in report.rows]  # type: ignore[union-attr]  # all done
    assert files[0] == files[2] != files[1]
    mpp = [read_header(tmp_path / "out" / file).facts.slide_px for file in files[:2]]
    assert mpp == [(1500, 1200), (900, 900)]


@pytest.mark.slow
def test_a_tile_that_cannot_be_read_has_no_row(tiny: FileEncoder, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "bad.tif", tissue(1600), mpp=2.0, tile=128)
    whole = extract_features(path, tmp_path / "whole", Extraction(tiny), resources=SERIAL)
    zero_tiles(path, [40])
    settings = Settings(max_unreadable=0.5)
    report = extract_features(
        path, tmp_path / "gaps", Extraction(tiny), settings=settings, resources=SERIAL
    )
    assert whole.counts["done"] == report.counts["gaps"] == 1
    all_tiles = read_features(tmp_path / "whole" / "bad.zarr")
    left = read_features(tmp_path / "gaps" / "bad.zarr")
    missing = len(all_tiles) - len(left)
    assert 0 < missing < 10
    assert all_tiles.corners_px is not None
    assert left.corners_px is not None
    place = {tuple(corner): row for row, corner in enumerate(all_tiles.corners_px)}
    kept = [place[tuple(corner)] for corner in left.corners_px]
    np.testing.assert_array_equal(left.features, all_tiles.features[kept])
    assert read_header(tmp_path / "gaps" / "bad.zarr").facts.unreadable == missing
    row = table(tmp_path / "gaps")["bad"]
    assert (row["state"], row["unreadable"]) == ("DONE_WITH_GAPS", str(missing))
    strict = extract_features(path, tmp_path / "strict", Extraction(tiny), resources=SERIAL)
    assert strict.counts["failed"] + strict.counts["rejected"] + strict.counts["gaps"] == 1
    if not strict.complete:
        assert not (tmp_path / "strict" / "bad.zarr").exists()


def tissue(side: int) -> np.ndarray:
    """Pink with texture all over."""
    rng = np.random.default_rng(0)
    image = gradient(side, side) // 4 + np.array([150, 60, 110], np.uint8)
    return np.asarray(image + rng.integers(0, 30, image.shape, np.uint8), np.uint8)


def test_a_slide_that_is_too_coarse_or_has_no_scale_says_so(
    tiny: FileEncoder, tmp_path: Path
) -> None:
    write_tiff(tmp_path / "coarse.tif", tissue(600), mpp=8.0)
    write_tiff(tmp_path / "bare.tif", tissue(600), mpp=None)
    paths = [tmp_path / "bare.tif", tmp_path / "coarse.tif"]
    report = extract_features(paths, tmp_path / "out", Extraction(tiny), resources=SERIAL)
    codes = {name: row["code"] for name, row in table(tmp_path / "out").items()}
    assert codes == {"bare": "E_NO_MPP", "coarse": "E_MPP_TOO_COARSE"}
    assert report.counts["rejected"] == 2
    stated = Extraction(tiny, mpp=2.0)
    assert extract_features(paths[0], tmp_path / "out", stated, resources=SERIAL).complete


def test_a_manifest_gives_patients(phantom: Path, tiny: FileEncoder, tmp_path: Path) -> None:
    manifest = tmp_path / "slides.csv"
    manifest.write_text(f"path,slide_id,patient_id\n{phantom},=S1,P1\n")
    extract_features(manifest, tmp_path / "out", Extraction(tiny), resources=SERIAL)
    (row,) = table(tmp_path / "out").values()
    assert (row["slide"], row["patient"]) == ("'=S1", "P1")
    assert (tmp_path / "out" / row["features"]).exists()


@pytest.fixture(scope="module")
def mobilenet(data: Find, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An encoder by files: a JSON card and ImageNet's weights of timm's MobileNetV2."""
    weights = data("weights/mobilenetv2_100_imagenet_fp16.safetensors")
    half = (0.5, 0.5, 0.5)
    told = EncoderFile(
        1,
        TileCard("mobilenet-2", 2.0, (0.2, 2.5), 112),
        EncoderCard(
            "mobilenetv2_100", {"pad_type": "same"}, "default", 1280, 112, "bilinear", half, half
        ),
        hashlib.sha256(weights.read_bytes()).hexdigest(),
    )
    path = tmp_path_factory.mktemp("encoder") / "mobilenet.json"
    path.write_bytes(orjson.dumps(write_fields(told)))
    return path, weights


def test_any_timm_encoder_can_be_given_by_files(
    data: Find, mobilenet: tuple[Path, Path], tmp_path: Path
) -> None:
    """On a real slide; the identifier and the features are those of the encoder loaded apart."""
    path = data("slides/CMU-1-Small-Region.svs")
    extraction = Extraction(FileEncoder(*mobilenet), "stamp")
    report = extract_features(path, tmp_path, extraction, resources=SERIAL)
    told = EncoderFile.read(mobilenet[0])
    encoder = load_encoder(told.encoder, mobilenet[1], device=Device("cpu", runtime="torch"))
    assert report.encoder == encoder.identifier
    header = read_header(tmp_path / "CMU-1-Small-Region.h5")
    assert (header.form, header.feature_size) == ("stamp", 1280)
    assert header.facts.encoder == encoder.identifier
    slide = open_slide(path)
    tiles = survey_slide(open_reader(slide), told.tiles, Settings()).tiles
    assert header.tiles == len(tiles) > 10
    reader = open_reader(slide)
    pixels = read_tiles(reader, TileBatch(slide, tiles[:4], 0))
    reader.close()
    found, expected = read_features(header.path), encoder.encode(pixels.images)
    drift = np.linalg.norm(found.features[:4] - expected) / np.linalg.norm(expected)
    assert drift < 1e-4
    assert found.corners_px is not None
    np.testing.assert_allclose(found.corners_px, tiles.boxes[:, :2], atol=0.01)


def make_scout(device: Device) -> TileEncoder:
    return load_bundle("breast-idc-scout", device=device).encoder


def test_an_encoder_may_be_made_by_a_function(
    phantom: Path, extracted: Path, tmp_path: Path
) -> None:
    tiles = TileCard("made", 4.0, (0.1, 5.0), 50)
    source = MadeEncoder(make_scout, tiles)
    extract_features(phantom, tmp_path, Extraction(source), resources=SERIAL)
    found = read_features(tmp_path / f"{phantom.stem}.zarr")
    expected = read_features(extracted / "tissue.zarr")
    np.testing.assert_array_equal(found.features, expected.features)


@pytest.mark.slow
def test_features_of_two_encoders_do_not_mix(
    mobilenet: tuple[Path, Path], extracted: Path, phantom: Path, tmp_path: Path
) -> None:
    shutil.copytree(extracted / "tissue.zarr", tmp_path / "tissue.zarr")
    extract_features(phantom, tmp_path, Extraction(FileEncoder(*mobilenet)), resources=SERIAL)
    with pytest.raises(UsageError) as caught:
        open_bags(tmp_path, ["tissue", phantom.stem])
    assert caught.value.code == "E_FEATURES_MIXED"
    for name in ("tissue", phantom.stem):
        encoder = read_header(tmp_path / f"{name}.zarr").facts.encoder
        assert str(encoder) in str(caught.value)


def test_what_makes_no_sense_is_said_before_anything_runs(
    phantom: Path, mobilenet: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    told = EncoderFile.read(mobilenet[0])
    wrong = tmp_path / "wrong.json"
    wrong.write_bytes(orjson.dumps(write_fields(replace(told, weights_sha256="0" * 64))))
    text = tmp_path / "text.json"
    text.write_text("{")
    for bad, error in (
        (Extraction(BundleEncoder("nowhere")), ModelError),
        (Extraction(SCOUT, "parquet"), UsageError),  # type: ignore[arg-type]  # no form
        (Extraction(FileEncoder(wrong, mobilenet[1])), ModelError),
        (Extraction(FileEncoder(text, mobilenet[1])), ModelError),
        (Extraction(FileEncoder(tmp_path / "none.json", mobilenet[1])), ModelError),
        (Extraction(FileEncoder(mobilenet[0], tmp_path / "none.safetensors")), ModelError),
    ):
        with pytest.raises(error):
            extract_features(phantom, out, bad, resources=SERIAL)
    assert not out.exists()
    with pytest.raises(ModelError, match="cannot be"):
        TileCard("x", 0.5, (0.6, 1.0), 224)


def test_a_full_disk_ends_the_run_and_keeps_what_is_done(
    slides: list[Path], tiny: FileEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slidetriage.workflows.research import zarr_features

    whole = zarr_features.whole_chunks

    def full(parts: Iterator[np.ndarray], rows: int) -> Iterator[tuple[int, np.ndarray]]:
        for part in whole(parts, rows):
            if len(part[1]):
                raise OSError(28, "No space left on device")
            yield part

    monkeypatch.setattr(zarr_features, "whole_chunks", full)
    with pytest.raises(OutputError, match="No space left"):
        extract_features(slides, tmp_path, Extraction(tiny), resources=SERIAL)
    assert not list(tmp_path.glob("tissue*"))
    assert "features.csv" in {path.name for path in tmp_path.iterdir()}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_triage_keeps_the_same_features(phantom: Path, extracted: Path, tmp_path: Path) -> None:
    """Triage and extraction see the same tiles; triage's features are the extraction's."""
    triage(phantom, tmp_path / "t", settings=Settings(keep_features=True), resources=SERIAL)
    (kept,) = (tmp_path / "t").glob("*/features.zarr")
    expected = read_features(extracted / "tissue.zarr")
    np.testing.assert_array_equal(read_features(kept).features, expected.features)
