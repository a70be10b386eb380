"""Backbones by name: the features are timm's, the licence is kept, and revisions never mix."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from slidetriage import Resources, Settings
from slidetriage.errors import ModelError, UsageError
from slidetriage.models import Device
from slidetriage.models.foreign import BACKBONES, Backbone, list_backbones
from slidetriage.tiling import TileBatch, read_tiles
from slidetriage.workflows.cli import app, exit_code
from slidetriage.workflows.research import (
    BundleEncoder,
    Extraction,
    FileEncoder,
    TileModel,
    extract_features,
    read_features,
    read_header,
)
from slidetriage.workflows.research.registered_encoders import (
    RegisteredEncoder,
    choose_encoder,
    name_exclusions,
)
from slidetriage.workflows.research.training_options import TrainingRequest
from slidetriage.workflows.research.training_run import make_study
from slidetriage.workflows.surveying import survey_slide
from slidetriage.wsi import open_reader, open_slide

COMMITS = ("a" * 40, "b" * 40)
SERIAL = Resources("serial")
FLOAT32 = Settings(precision="float32")

TINY = Backbone(
    "tiny",
    "owner/tiny",
    "test_vit",
    64,
    0.4,
    "Apache-2.0",
    commercial=True,
    gated=False,
    arguments={"img_size": 32},
    input_px=32,
    mpp=4.0,
    interpolation="bilinear",
)
TERMS = {"licence": "CC-BY-NC-ND-4.0", "commercial": False, "gated": True}
ENTRIES = (
    TINY,
    replace(TINY, name="tiny-nc", **TERMS),  # type: ignore[arg-type]  # fields of it
    replace(TINY, name="tiny-half", normalisation=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
    replace(TINY, name="tiny-twin"),
    replace(TINY, name="tiny-bin", note="Published as pytorch_model.bin."),
)


def save_weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    state = timm.create_model("test_vit", img_size=32, num_classes=0).state_dict()
    save_file(state, path)
    return path


@pytest.fixture(scope="module", autouse=True)
def _entries() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for entry in ENTRIES:
            patch.setitem(BACKBONES, entry.name, entry)  # type: ignore[arg-type]  # a dict
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", 3)


@pytest.fixture(scope="module")
def cache(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hub's cache with two revisions of one backbone; `main` is the second."""
    folder = tmp_path_factory.mktemp("hub")
    repository = folder / "models--owner--tiny"
    for commit in COMMITS:
        (repository / "snapshots" / commit).mkdir(parents=True)
    shutil.copy(weights, repository / "snapshots" / COMMITS[0] / "model.safetensors")
    save_weights(repository / "snapshots" / COMMITS[1] / "model.safetensors", 4)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMITS[1])
    return folder


def registering(source: RegisteredEncoder) -> Callable[[Device], TileModel]:
    """The same source for a process that does not have the entries of this test."""
    entries = ENTRIES

    def open_here(device: Device) -> TileModel:
        from slidetriage.models.foreign import BACKBONES

        for entry in entries:
            BACKBONES[entry.name] = entry  # type: ignore[index]  # a dict
        return source(device)

    return open_here


def test_a_source_pickles_and_brings_scale_tile_and_transform(weights: Path) -> None:
    source = pickle.loads(pickle.dumps(RegisteredEncoder("tiny", weights)))
    assert source == RegisteredEncoder("tiny", weights)
    model = source(Device("cpu"))
    assert (model.card.name, model.card.mpp, model.card.tile_px) == ("tiny", 4.0, 32)
    assert model.card.mpp_range == pytest.approx((1.0, 4.4))
    assert model.encoder.card == TINY.card
    assert model.identity == f"tiny:{model.encoder.identifier}"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in model.identity


@pytest.mark.parametrize("name", list_backbones())
def test_every_entry_has_tiles_that_can_be(name: str, weights: Path) -> None:
    """Weights of another architecture are refused before anything as large as it is built."""
    source = RegisteredEncoder(name, weights, accept_licence=True)
    assert BACKBONES[name].licence in source.terms
    with pytest.raises(ModelError, match="another architecture"):
        source(Device("cpu"))


@pytest.mark.slow
def test_every_engine_gives_the_features_of_timm(
    phantom: Path, weights: Path, tmp_path: Path
) -> None:
    found = {}
    for engine in (SERIAL, Resources("dask", workers=2)):
        out = tmp_path / engine.engine
        extraction = Extraction(registering(RegisteredEncoder("tiny", weights)))
        report = extract_features(phantom, out, extraction, settings=FLOAT32, resources=engine)
        assert report.counts["done"] == 1
        found[engine.engine] = read_features(out / "phantom.zarr")
        header = read_header(out / "phantom.zarr")
        assert header.facts.encoder == report.encoder
        assert (header.facts.mpp, header.facts.tile_px, header.feature_size) == (4.0, 32, 64)
    np.testing.assert_array_equal(found["serial"].features, found["dask"].features)
    np.testing.assert_array_equal(found["serial"].corners_px, found["dask"].corners_px)
    model = RegisteredEncoder("tiny", weights)(Device("cpu"))
    slide = open_slide(phantom)
    tiles = survey_slide(open_reader(slide), model.card, Settings()).tiles
    assert len(tiles) == len(found["serial"]) > 50
    reader = open_reader(slide)
    pixels = read_tiles(reader, TileBatch(slide, tiles, 0))
    reader.close()
    torch.manual_seed(3)
    network = timm.create_model("test_vit", img_size=32, num_classes=0).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in TINY.normalisation)
    with torch.inference_mode():
        x = (torch.from_numpy(pixels.images).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = network(x).numpy()
    np.testing.assert_allclose(found["serial"].features, expected, atol=1e-4)


def test_the_command_takes_a_name_and_local_weights(
    phantom: Path, weights: Path, tmp_path: Path
) -> None:
    options = ["features", str(phantom), "--engine", "serial", "--precision", "float32", "--json"]
    options += ["--encoder", "tiny-nc", "--weights", str(weights), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, options)
    assert isinstance(refused.exception, UsageError)
    assert exit_code(refused.exception) == 2
    said = str(refused.exception)
    for text in ("CC-BY-NC-ND-4.0", "excludes commercial use", "changed", "--accept-licence"):
        assert text in said
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, [*options, "--accept-licence"])
    assert done.exit_code == 0, done.output
    licence = done.stderr.splitlines()[0]
    assert licence.startswith("Licence of tiny-nc: CC-BY-NC-ND-4.0, excludes commercial use")
    assert "accepted" in licence
    assert "Licence" not in done.stdout
    header = read_header(tmp_path / "out" / "phantom.zarr")
    assert header.facts.encoder is not None
    assert header.facts.encoder.startswith("tiny-nc:test_vit-")
    assert header.tiles > 50
    options[options.index("tiny-nc")] = "tiny"
    free = CliRunner().invoke(app, options)
    assert free.exit_code == 0, free.output
    assert "Apache-2.0, allows commercial use" in free.stderr


def test_a_pinned_commit_comes_from_the_cache(weights: Path, cache: Path) -> None:
    first, second = (
        RegisteredEncoder(f"tiny@{commit}", cache=cache)(Device("cpu")) for commit in COMMITS
    )
    assert first.identity == RegisteredEncoder("tiny", weights)(Device("cpu")).identity
    assert first.identity != second.identity


def test_absent_weights_say_how_to_get_them(cache: Path) -> None:
    none = "c" * 40
    with pytest.raises(ModelError, match="not in the local cache") as caught:
        RegisteredEncoder(f"tiny@{none}", cache=cache)(Device("cpu"))
    download = f"hf download owner/tiny model.safetensors --revision {none}"
    assert download in caught.value.mend
    assert "gated" not in caught.value.mend
    with pytest.raises(ModelError) as caught:
        RegisteredEncoder(f"tiny-nc@{none}", accept_licence=True, cache=cache)(Device("cpu"))
    assert "ask for access at https://huggingface.co/owner/tiny" in caught.value.mend
    assert "hf auth login" in caught.value.mend
    assert download in caught.value.mend
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*convert_pickled.*--weights"):
        RegisteredEncoder(f"tiny-bin@{none}", cache=cache)(Device("cpu"))


def test_a_commit_is_never_chosen_for_the_user(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither is given") as caught:
        RegisteredEncoder("tiny", cache=cache)
    assert f"The local cache has tiny@{COMMITS[1]}." in caught.value.mend
    with pytest.raises(UsageError) as caught:
        RegisteredEncoder("tiny-nc", accept_licence=True, cache=tmp_path)
    assert "cache has" not in caught.value.mend
    assert "ask for access" in caught.value.mend
    assert "--encoder tiny-nc@" in caught.value.mend
    with pytest.raises(UsageError, match="--weights FILE") as caught:
        RegisteredEncoder("tiny-bin", cache=tmp_path)
    assert "tiny-bin@" not in caught.value.mend, "the hub has no safetensors file of it"
    for commit in ("main", "v1", "A" * 40, "a" * 39):
        with pytest.raises(UsageError, match=f"'{commit}' is no commit"):
            RegisteredEncoder(f"tiny@{commit}", cache=cache)


def test_bad_names_and_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no backbone 'tinny'.*h-optimus-0.*virchow2"):
        RegisteredEncoder("tinny", weights)
    with pytest.raises(UsageError, match="both a commit and a file"):
        RegisteredEncoder(f"tiny@{COMMITS[0]}", weights)
    with pytest.raises(ModelError, match="cannot be read"):
        RegisteredEncoder("tiny", tmp_path / "none.safetensors")(Device("cpu"))
    (tmp_path / "weights.bin").write_bytes(weights.read_bytes())
    with pytest.raises(ModelError, match="no safetensors file"):
        RegisteredEncoder("tiny", tmp_path / "weights.bin")(Device("cpu"))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="damaged"):
        RegisteredEncoder("tiny", cut)(Device("cpu"))


def test_the_licence_is_asked_for_on_workers_too(weights: Path) -> None:
    source = RegisteredEncoder("tiny-nc", weights, accept_licence=True)
    object.__setattr__(source, "accept_licence", False)
    with pytest.raises(UsageError, match="CC-BY-NC-ND"):
        pickle.loads(pickle.dumps(source))(Device("cpu"))


def test_exclusions_are_those_of_the_licence() -> None:
    assert name_exclusions(BACKBONES["virchow"]) == ""
    assert name_exclusions(BACKBONES["lunit-s8"]) == "commercial use"
    assert "changed" in name_exclusions(BACKBONES["virchow2"])
    excluded = {name for name in list_backbones() if name_exclusions(BACKBONES[name])}
    assert excluded == set(list_backbones()) - set(list_backbones(commercial=True))


def test_a_command_names_encoders_in_three_ways(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert choose_encoder("scout", None, None) == BundleEncoder("scout")
    assert choose_encoder("scout", "tiny", weights) == RegisteredEncoder("tiny", weights)
    shutil.copy(weights, "local.safetensors")
    local = tmp_path / "local.safetensors"
    assert choose_encoder("scout", "tiny", Path(local.name)) == RegisteredEncoder("tiny", local)
    Path("card").touch()
    Path("tiny").touch()
    for card in ("card.json", "./tiny", "card"):
        found = choose_encoder("scout", card, weights)
        assert found == FileEncoder(tmp_path / card, weights)
        with pytest.raises(UsageError, match="go together"):
            choose_encoder("scout", card, None)
    assert isinstance(choose_encoder("scout", "tiny", weights), RegisteredEncoder)
    with pytest.raises(UsageError, match="go together"):
        choose_encoder("scout", None, weights)
    with pytest.raises(ModelError, match="no backbone 'tinny'"):
        choose_encoder("scout", "tinny", weights)


@pytest.fixture(scope="module")
def four_slides(phantom: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of four slides, and their features by one backbone."""
    folder = tmp_path_factory.mktemp("four")
    slides = [folder / f"s{number}.tif" for number in range(4)]
    for slide in slides:
        shutil.copy(phantom, slide)
    extraction = Extraction(RegisteredEncoder("tiny", weights))
    extract_features(slides, folder / "features", extraction, resources=SERIAL)
    lines = (f"s{n},P{n},{'ab'[n % 2]}\n" for n in range(4))
    (folder / "slides.csv").write_text("slide,patient,label\n" + "".join(lines))
    return folder


@pytest.mark.parametrize(
    "other", [f"tiny@{COMMITS[1]}", "tiny-half", "tiny-twin"], ids=["revision", "transform", "name"]
)
def test_training_refuses_features_that_were_made_differently(
    four_slides: Path, weights: Path, cache: Path, tmp_path: Path, other: str
) -> None:
    first = RegisteredEncoder("tiny", weights)
    second = RegisteredEncoder(other, None if "@" in other else weights, cache=cache)
    features = tmp_path / "features"
    shutil.copytree(four_slides / "features", features)
    request = TrainingRequest(four_slides / "slides.csv", features, None, {"label": "label"})
    assert len(make_study(request).cohort) == 4
    # Into the same folder: what is there stays, so the new file has another name at first.
    report = extract_features(
        four_slides / "s3.tif", features, Extraction(second), resources=SERIAL
    )
    assert len(make_study(request).cohort) == 4
    shutil.rmtree(features / "s3.zarr")
    (added,) = features.glob("s3-*.zarr")
    added.rename(features / "s3.zarr")
    with pytest.raises(UsageError) as caught:
        make_study(request)
    assert caught.value.code == "E_FEATURES_MIXED"
    identity = first(Device("cpu")).identity
    assert f"s3.zarr is of {report.encoder}, but" in str(caught.value)
    assert f"s0.zarr is of {identity}:" in str(caught.value)
    assert "different encoders, revisions or transforms" in str(caught.value)
