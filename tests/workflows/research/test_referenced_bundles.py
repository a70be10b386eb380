"""Bundles on a registered backbone: its weights stay where they are, and only those are taken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from typer.testing import CliRunner

from slidetriage import Resources, Settings, load_bundle, triage
from slidetriage.errors import ModelError, UsageError
from slidetriage.models import Bag, Device
from slidetriage.models.foreign import BACKBONES, Backbone
from slidetriage.models.store import WEIGHTS_VARIABLE
from slidetriage.workflows.cli import app
from slidetriage.workflows.research import BundleEncoder
from slidetriage.workflows.research.bundling import BundleRequest, calibrate_run
from slidetriage.workflows.research.prediction_files import read_predictions
from slidetriage.workflows.research.registered_encoders import RegisteredEncoder
from slidetriage.workflows.research.training_options import TrainingRequest
from slidetriage.workflows.research.training_run import run_request

COMMIT = "c" * 40
WIDTH, SLIDES, TILES = 64, 60, 5

# No name of another test file: entries are shared by the process.
SMALL = Backbone(
    "small-nc",
    "owner/small",
    "test_vit",
    WIDTH,
    0.4,
    "CC-BY-NC-ND-4.0",
    commercial=False,
    gated=True,
    arguments={"img_size": 32},
    input_px=32,
    mpp=4.0,
    interpolation="bilinear",
)


@pytest.fixture(scope="module", autouse=True)
def _entry() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, SMALL.name, SMALL)  # type: ignore[arg-type]  # a dict
        yield


def save_weights(path: Path, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = timm.create_model("test_vit", img_size=32, num_classes=0).state_dict()
    safetensors.torch.save_file(state, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Called otherwise than the backbone."""
    return save_weights(tmp_path_factory.mktemp("weights") / "mine.safetensors", 3)


@pytest.fixture(scope="module")
def source(weights: Path) -> RegisteredEncoder:
    return RegisteredEncoder("small-nc", weights, accept_licence=True)


def bag_of(row: int) -> np.ndarray:
    rng = np.random.default_rng(row)
    tiles = rng.normal(0, 1, (TILES, WIDTH))
    tiles[:, :8] += rng.normal(1.5 * (row % 2), 0.5)
    return tiles.astype(np.float32)


@pytest.fixture(scope="module")
def run(source: RegisteredEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study on features that state the registered name."""
    folder = tmp_path_factory.mktemp("referenced")
    identity = source(Device("cpu")).identity
    assert identity.startswith("small-nc:test_vit-")
    np.savez(
        folder / "bags.npz",
        features=np.concatenate([bag_of(row) for row in range(SLIDES)]),
        offsets=np.arange(SLIDES + 1) * TILES,
        slide_id=np.array([f"s{row}" for row in range(SLIDES)]),
    )
    lines = (f"s{row},P{row},{'ab'[row % 2]}\n" for row in range(SLIDES))
    (folder / "slides.csv").write_text("slide,patient,label\n" + "".join(lines))
    request = TrainingRequest(
        folder / "slides.csv",
        folder / "bags.npz",
        identity,
        {"label": "label"},
        head="mean",
        arguments=("hidden=16",),
        epochs=8,
        rate=5e-3,
        folds=2,
    )
    run_request(request, folder / "run", Resources("serial"))
    return folder / "run"


@pytest.fixture(scope="module")
def bundle(run: Path, source: RegisteredEncoder) -> Path:
    path = run.with_name("bundle")
    calibrate_run(BundleRequest(run, path, source))
    return path


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)


def test_the_bundle_names_its_encoder_and_does_not_hold_it(
    bundle: Path, run: Path, source: RegisteredEncoder, weights: Path
) -> None:
    loaded = load_bundle(bundle, encoder_weights=weights)
    model = source(Device("cpu"))
    reference = loaded.card.encoder_from
    assert reference is not None
    assert reference.backbone == "small-nc"
    assert f"{reference.backbone}:{reference.identifier}" == model.identity
    assert loaded.encoder.identifier == model.encoder.identifier
    assert (loaded.card.tile_px, loaded.card.mpp) == (32, 4.0)
    names = safetensors.torch.load_file(bundle / "weights.safetensors").keys()
    assert {name.partition(".")[0] for name in names} == {"head"}
    predictions = read_predictions(run / "predictions.csv")
    for row in predictions.rows("fold 0", "validation"):
        features = bag_of(int(predictions.slide[row][1:]))
        found = loaded.predict(Bag(features, np.zeros((TILES, 2), np.float32)))
        assert found.uncalibrated == pytest.approx(predictions.score[row, 1], abs=1e-5)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(loaded.encode(images), model.encode(images), atol=1e-4)


def test_a_slide_is_run_with_the_users_own_copy(
    bundle: Path, weights: Path, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copies").mkdir()
    shutil.copy(weights, tmp_path / "copies" / "small-nc.safetensors")
    settings = Settings(model=str(bundle), precision="float32")
    with pytest.raises(ModelError, match="needs the weights of small-nc") as caught:
        triage(phantom, tmp_path / "out", settings=settings, resources=Resources("serial"))
    assert WEIGHTS_VARIABLE in caught.value.mend
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "copies"))
    report = triage(phantom, tmp_path / "out", settings=settings, resources=Resources("serial"))
    assert report.counts["done"] == 1
    assert report.rows[0].score is not None


def test_other_weights_are_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save_weights(tmp_path / "small-nc.safetensors", 4)
    with pytest.raises(ModelError, match=r"small-nc\.safetensors is not the encoder"):
        load_bundle(bundle, encoder_weights=other)
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    with pytest.raises(ModelError, match="is not the encoder") as caught:
        load_bundle(bundle)
    assert "identifier" in caught.value.mend
    with pytest.raises(ModelError, match="cannot be read"):
        load_bundle(bundle, encoder_weights=tmp_path / "none.safetensors")


def test_a_commit_in_the_cache_is_found_again(
    run: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / "models--owner--small" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    shutil.copy(weights, snapshot / "model.safetensors")
    source = RegisteredEncoder(f"small-nc@{COMMIT}", accept_licence=True, cache=tmp_path / "hub")
    card = calibrate_run(BundleRequest(run, tmp_path / "b", source)).card
    assert card.encoder_from is not None
    assert card.encoder_from.backbone == f"small-nc@{COMMIT}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert load_bundle(tmp_path / "b").card == card
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(ModelError, match="not in the local cache"):
        load_bundle(tmp_path / "b")
    shutil.copy(weights, tmp_path / "small-nc.safetensors")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    assert load_bundle(tmp_path / "b").card == card


def test_a_bundle_on_a_referenced_encoder_refers_to_it_too(
    run: Path, bundle: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features by that bundle are called without the name, so they need a study of their own."""
    shutil.copy(weights, tmp_path / "small-nc.safetensors")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    source = BundleEncoder(str(bundle))
    with pytest.raises(UsageError, match=r"of small-nc:test_vit-.* is test_vit-") as caught:
        calibrate_run(BundleRequest(run, tmp_path / "b", source))
    assert caught.value.code == "E_FEATURES_MIXED"
    request = TrainingRequest(
        run.with_name("slides.csv"),
        run.with_name("bags.npz"),
        source(Device("cpu")).identity,
        {"label": "label"},
        head="mean",
        epochs=6,
        rate=5e-3,
        folds=2,
    )
    run_request(request, tmp_path / "run", Resources("serial"))
    card = calibrate_run(BundleRequest(tmp_path / "run", tmp_path / "b", source)).card
    assert card.encoder_from == load_bundle(bundle).card.encoder_from


def test_the_command_asks_for_the_licence_and_says_what_it_is(
    run: Path, weights: Path, tmp_path: Path
) -> None:
    options = ["calibrate", str(run), "--out", str(tmp_path / "b"), "--encoder", "small-nc"]
    options += ["--weights", str(weights)]
    refused = CliRunner().invoke(app, options)
    assert isinstance(refused.exception, UsageError)
    assert "--accept-licence" in str(refused.exception)
    made = CliRunner().invoke(app, [*options, "--accept-licence"])
    assert made.exit_code == 0, made.output
    assert "Licence of small-nc: CC-BY-NC-ND-4.0" in made.stderr
    assert "Licence" not in made.stdout
    assert load_bundle(tmp_path / "b", encoder_weights=weights).card.licence == "unstated"
