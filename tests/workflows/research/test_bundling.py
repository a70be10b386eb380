"""From features to a training to a bundle to a verdict: each agrees with the one before it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import brier_score_loss, roc_auc_score
from typer.testing import CliRunner

from slidetriage import Resources, Settings, load_bundle, triage
from slidetriage.errors import ModelError, OutputError, UsageError
from slidetriage.models import Bag, Device
from slidetriage.models.heads import build_head, list_heads
from slidetriage.workflows.cli import app
from slidetriage.workflows.research import (
    BundleEncoder,
    Extraction,
    FeatureFacts,
    extract_features,
    read_features,
    write_features,
)
from slidetriage.workflows.research.bundle_card import Wording
from slidetriage.workflows.research.bundle_fitting import Wishes
from slidetriage.workflows.research.bundle_training import turn_round
from slidetriage.workflows.research.bundling import BundleRequest, calibrate_run
from slidetriage.workflows.research.encoders import StainedEncoder, fit_stain
from slidetriage.workflows.research.training_options import TrainingRequest
from slidetriage.workflows.research.training_run import run_request

SCOUT = BundleEncoder("breast-idc-scout")
SERIAL = Resources("serial")
SLIDES, WIDTH = 160, 1280
HEADS = {"gated_attention": ("hidden=16", "attention=8"), "clam_sb": ("hidden=16", "attention=8")}


def bag_of(row: int) -> np.ndarray:
    """Tiles of slide `row`; odd ones are tumour, their tiles shifted, some more and some less."""
    rng = np.random.default_rng(row)
    tiles = rng.gamma(2, 0.3, (4 + row % 5, WIDTH))
    tiles[:, :20] += rng.normal(0.6 * (row % 2), 0.4)
    return tiles.astype(np.float32)


@pytest.fixture(scope="module")
def scout() -> str:
    """The identity that features of the scout's encoder state."""
    return SCOUT(Device("cpu")).identity


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of slides, two given folds with many validation slides, and features."""
    folder = tmp_path_factory.mktemp("calibrate")
    rows = np.arange(SLIDES)
    slides = [f"s{row}" for row in rows]
    pd.DataFrame(
        {
            "slide": slides,
            "patient": [f"P{row // 2 if row < 8 else row}" for row in rows],
            "hospital": np.where(rows % 3 == 0, "A", "B"),
            "diagnosis": np.where(rows % 2 == 1, "tumour", "normal"),
            "grade": np.array(["low", "middle", "high"])[rows % 3],
            "age": 40.0 + rows % 30,
            "months": 1.0 + rows,
            "died": rows % 2,
        }
    ).to_csv(folder / "slides.csv", index=False)
    parts = np.array(["train", "val", "val", "test"])
    folds = [parts[(rows // 2 + shift) % 4] for shift in (0, 2)]
    pd.concat(
        pd.DataFrame({"fold": number, "part": part, "slide_id": slides})
        for number, part in enumerate(folds)
    ).to_csv(folder / "splits.csv", index=False)
    bags = [bag_of(row) for row in rows]
    np.savez(
        folder / "bags.npz",
        features=np.concatenate(bags),
        offsets=np.cumsum([0, *map(len, bags)]),
        slide_id=np.array(slides),
    )
    return folder


@pytest.fixture(scope="module")
def ask(folder: Path, scout: str) -> Callable[..., TrainingRequest]:
    def make(**changes: object) -> TrainingRequest:
        request = TrainingRequest(
            table=folder / "slides.csv",
            features=folder / "bags.npz",
            encoder_name=scout,
            columns={"label": "diagnosis", "site": "hospital"},
            classes=("normal", "tumour"),
            arguments=HEADS["gated_attention"],
            epochs=6,
            rate=5e-3,
            splits=folder / "splits.csv",
        )
        return replace(request, **changes)  # type: ignore[arg-type]  # fields of it

    return make


@pytest.fixture(scope="module")
def runs(folder: Path, ask: Callable[..., TrainingRequest]) -> dict[str, Path]:
    """A run of two folds for each head."""
    found = {}
    for head, arguments in HEADS.items():
        found[head] = folder / f"Run of {head}"
        run_request(ask(head=head, arguments=arguments), found[head], SERIAL)
    return found


@pytest.fixture(scope="module")
def bundles(folder: Path, runs: dict[str, Path]) -> dict[str, Path]:
    """A bundle of the second fold of each."""
    found = {}
    for head, run in runs.items():
        found[head] = folder / "bundles" / head
        wishes = Wishes(rule_out=0.9)
        request = BundleRequest(run, found[head], SCOUT, "fold-1-seed-0", wishes=wishes)
        calibrate_run(request)
    return found


def predictions_of(run: Path, fold: int, part: str) -> pd.DataFrame:
    table = pd.read_csv(run / "predictions.csv")
    return table[(table["fold"] == f"fold {fold}") & (table["part"] == part)]


def predict(bundle_path: Path, slides: pd.Series) -> pd.DataFrame:
    """What a loaded bundle says of the features of some slides."""
    bundle = load_bundle(bundle_path)
    bags = [bag_of(int(name[1:])) for name in slides]
    found = [bundle.predict(Bag(bag, np.zeros((len(bag), 2), np.float32))) for bag in bags]
    names = ("probability", "uncalibrated", "novelty")
    frame = pd.DataFrame({name: [getattr(each, name) for each in found] for name in names})
    frame["tiles"] = [each.tile_scores for each in found]
    frame["tile_novelty"] = [each.tile_novelty for each in found]
    return frame


@pytest.mark.parametrize("head", HEADS)
def test_a_bundle_says_what_the_training_said(
    head: str, runs: dict[str, Path], bundles: dict[str, Path]
) -> None:
    card = load_bundle(bundles[head]).card
    assert card.head.kind == head
    assert card.calibration is not None
    slope, intercept = card.calibration.numbers
    for part in ("validation", "test"):
        table = predictions_of(runs[head], 1, part)
        found = predict(bundles[head], table["slide"])
        np.testing.assert_allclose(found["uncalibrated"], table["p tumour"], atol=1e-5)
        logit = np.log(table["p tumour"] / table["p normal"]).to_numpy()
        expected = 1 / (1 + np.exp(-(slope * logit + intercept)))
        np.testing.assert_allclose(found["probability"], expected, atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_thresholds_keep_what_they_promise_where_they_were_chosen(
    head: str, runs: dict[str, Path], bundles: dict[str, Path]
) -> None:
    card = load_bundle(bundles[head]).card
    table = predictions_of(runs[head], 1, "validation")
    found = predict(bundles[head], table["slide"])
    positive = (table["label"] == "tumour").to_numpy()
    score = found["probability"].to_numpy()
    assert card.rule_out is not None
    for point, kept in ((card.slide_threshold, 0.95), (card.rule_out, 0.9)):
        enough = [t for t in score[positive] if (score[positive] >= t).mean() >= kept]
        assert point.value == max(enough)
        assert point.sensitivity == pytest.approx((score[positive] >= point.value).mean())
        assert point.specificity == pytest.approx((score[~positive] < point.value).mean())
        assert f"{positive.sum()} positive slides" in point.chosen
    negative = np.concatenate(found["tiles"][~positive].tolist())
    assert (negative < card.tile_threshold.value).mean() >= 0.99
    below = np.nextafter(np.float32(card.tile_threshold.value), np.float32(0))
    assert (negative < below).mean() < 0.99
    assert card.tile_threshold.specificity == pytest.approx(
        (negative < card.tile_threshold.value).mean(), abs=1e-4
    )
    assert "no tile is labelled" in card.tile_threshold.chosen
    assert card.novelty is not None
    assert (found["novelty"] <= card.novelty.limit).mean() >= 0.95
    assert card.novelty.limit in found["novelty"].tolist()
    medians = [float(np.median(tiles)) for tiles in found["tile_novelty"]]
    np.testing.assert_allclose(found["novelty"], medians, atol=1e-4)
    tiles = np.concatenate(found["tile_novelty"].tolist())
    assert 0.95 <= (tiles <= card.novelty.tile_limit).mean() < 0.97


def test_the_conformal_rule_is_of_one_slide_of_each_patient(
    runs: dict[str, Path], bundles: dict[str, Path]
) -> None:
    card = load_bundle(bundles["clam_sb"]).card
    table = predictions_of(runs["clam_sb"], 1, "validation").reset_index(drop=True)
    first = table.drop_duplicates("patient")
    assert len(first) < len(table)
    assert card.conformal is not None
    assert card.conformal.label_conditional
    counts = first["label"].value_counts()
    assert card.conformal.fitted_on == (counts["normal"], counts["tumour"])
    score = predict(bundles["clam_sb"], first["slide"])["probability"].to_numpy()
    for column, label in enumerate(("normal", "tumour")):
        own = np.sort((score if column else 1 - score)[(first["label"] == label).to_numpy()])
        # The split conformal quantile: floor((n + 1) rate) of a class may fall below it.
        assert card.conformal.thresholds[column] == pytest.approx(
            own[int(np.floor((len(own) + 1) * 0.1 + 1e-9)) - 1], abs=1e-9
        )


@pytest.mark.parametrize("head", HEADS)
def test_the_metrics_are_those_of_the_test_patients(
    head: str, runs: dict[str, Path], bundles: dict[str, Path]
) -> None:
    card = load_bundle(bundles[head]).card
    metrics = {metric.name: metric for metric in card.metrics}
    table = predictions_of(runs[head], 1, "test")
    truth = (table["label"] == "tumour").to_numpy()
    found = predict(bundles[head], table["slide"])
    score = found["probability"].to_numpy()
    assert card.conformal is not None
    assert card.novelty is not None
    assert card.rule_out is not None
    low, high = card.conformal.thresholds
    sets = np.stack([1 - score >= low - 1e-12, score >= high - 1e-12], axis=1)
    eyes = (sets.sum(axis=1) != 1) | (found["novelty"].to_numpy() > card.novelty.limit)
    out = ~eyes & sets[:, 0] & (score < card.rule_out.value)
    assert 0 < out.sum() < (~truth).sum() + 3
    tiles = found["tiles"].map(len).to_numpy()
    called = score >= card.slide_threshold.value
    expected = {
        "slide AUC": roc_auc_score(truth, table["p tumour"]),
        "slide sensitivity": called[truth].mean(),
        "slide specificity": (~called)[~truth].mean(),
        "slide Brier score": brier_score_loss(truth, score),
        "slide Brier score before calibration": brier_score_loss(truth, table["p tumour"]),
        "conformal coverage": sets[np.arange(len(truth)), truth.astype(int)].mean(),
        "conformal coverage of positive slides": sets[truth, 1].mean(),
        "slides that need eyes": eyes.mean(),
        "slides ruled out": out.mean(),
        "tissue tiles ruled out": tiles[out].sum() / tiles.sum(),
        "positive slides not ruled out": (~out)[truth].mean(),
    }
    where = f"{len(truth)} slides of {table['patient'].nunique()} test patients"
    for name, value in expected.items():
        assert metrics[name].value == pytest.approx(value, abs=1e-4), name
        assert metrics[name].low <= metrics[name].value <= metrics[name].high
        assert metrics[name].measured_on == where
    error = metrics["slide expected calibration error"]
    assert error.measured_on.endswith("4 bins")
    parts = np.array_split(np.argsort(score), 4)
    by_hand = np.mean([abs(truth[p].mean() - score[p].mean()) for p in parts])
    assert error.value == pytest.approx(by_hand, abs=1e-4)


def test_the_card_says_what_it_was_made_of(folder: Path, bundles: dict[str, Path]) -> None:
    card = load_bundle(bundles["gated_attention"]).card
    table = pd.read_csv(folder / "slides.csv").set_index("slide")["patient"]
    splits = pd.read_csv(folder / "splits.csv")
    splits = splits[splits["fold"] == 1]
    patients = {
        part: tuple(sorted(set(table[splits[splits["part"] == part]["slide_id"]])))
        for part in ("train", "val", "test")
    }
    assert card.training.validation_patients == patients["val"]
    assert card.training.test_patients == patients["test"]
    assert card.training.patients == len(patients["train"])
    train = splits[splits["part"] == "train"]["slide_id"]
    assert card.training.tiles == sum(len(bag_of(int(name[1:]))) for name in train)
    assert card.name == "run-of-gated-attention"
    assert card.positive.name == "tumour"
    assert (card.licence, card.stain) == ("unstated", "unstated")
    assert (card.mpp, card.tile_px) == (4.0, 50)
    said = " ".join(card.limits)
    for text in ("40 slides of", "2 sites (A, B)", "chose the epoch", "One of 2 trainings"):
        assert text in said
    assert "299 patients" not in said
    assert "29 patients would be needed" not in said  # there are 40


@pytest.fixture(scope="module")
def extracted(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Features of a painted slide as `slidetriage features` makes them for a training."""
    out = tmp_path_factory.mktemp("extracted")
    extract_features(phantom, out, Extraction(SCOUT), resources=SERIAL)
    return read_features(out / "phantom.zarr").features


@pytest.mark.parametrize("head", HEADS)
def test_the_bundle_runs_on_a_slide(
    head: str, bundles: dict[str, Path], phantom: Path, extracted: np.ndarray, tmp_path: Path
) -> None:
    settings = Settings(model=str(bundles[head]))
    report = triage(phantom, tmp_path, settings=settings, resources=SERIAL)
    assert report.counts["done"] == 1
    (path,) = tmp_path.glob("phantom-*/result.json")
    result = json.loads(path.read_text())
    assert result["verdict"] in ("flag", "clear", "needs eyes")
    bag = Bag(extracted, np.zeros((len(extracted), 2), np.float32))
    expected = load_bundle(bundles[head]).predict(bag)
    assert result["score"] == pytest.approx(expected.probability, abs=1e-4)
    assert result["tiles"]["planned"] == len(extracted)
    manifest = json.loads(path.with_name("manifest.json").read_text())
    made_by = manifest["provenance"]["model"]
    assert made_by["identity"] == load_bundle(bundles[head]).identity
    assert made_by["name"] == f"run-of-{head.replace('_', '-')}"


def test_the_commands_go_from_a_table_to_a_bundle(folder: Path, scout: str, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    options = ["train", str(folder / "slides.csv"), "--features", str(folder / "bags.npz")]
    options += ["--encoder-name", scout, "--label-column", "diagnosis", "--epochs", "6"]
    options += ["--rate", "0.005", "--head", "max", "--engine", "serial", "--classes"]
    options += ["normal,tumour", "--splits", str(folder / "splits.csv")]
    trained = CliRunner().invoke(app, [*options, "--out", str(tmp_path / "run")])
    assert trained.exit_code == 0, trained.output
    options = ["calibrate", str(tmp_path / "run"), "--out", str(out), "--calibration", "isotonic"]
    options += ["--name", "my-model", "--stain", "H&E", "--organ", "breast", "--licence", "CC0-1.0"]
    made = CliRunner().invoke(app, [*options, "--json"])
    assert made.exit_code == 0, made.output
    record = orjson.loads(made.stdout)
    card = load_bundle(out).card
    assert (card.name, card.stain, card.tissue, card.licence) == (
        *("my-model", "H&E", "breast"),
        "CC0-1.0",
    )
    assert record["training"] == "fold-0-seed-0"
    assert record["calibration"]["kind"] == "isotonic"
    assert record["rule_out"] is None
    assert any("100 are needed" in warning for warning in record["warnings"])
    assert len(record["metrics"]) == len(card.metrics) > 5
    again = CliRunner().invoke(app, options)
    assert isinstance(again.exception, OutputError)
    options[options.index(str(out))] = str(tmp_path / "second")
    second = CliRunner().invoke(app, options)
    assert second.exit_code == 0, second.output
    assert "slide AUC" in second.stdout
    assert "For Research Use Only" in second.stdout
    files = ("card.json", "weights.safetensors")
    assert [(out / name).read_bytes() for name in files] == [
        (tmp_path / "second" / name).read_bytes() for name in files
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "run", "second"]


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_the_other_class_can_be_the_positive_one(
    head: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    request = BundleRequest(runs[head], tmp_path / "b", SCOUT, positive="normal")
    card = calibrate_run(request).card
    assert card.positive.name == "normal"
    assert [item.name for item in card.classes] == ["tumour", "normal"]
    table = predictions_of(runs[head], 0, "test")
    found = predict(tmp_path / "b", table["slide"])
    np.testing.assert_allclose(found["uncalibrated"], table["p normal"], atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in list_heads() if kind != "dsmil"])
def test_a_head_turned_round_gives_the_opposite_logits(kind: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        head = build_head(kind, 24, 1).eval()
        bags = torch.randn(2, 7, 24)
    mask = torch.ones(bags.shape[:2], dtype=torch.bool)
    with torch.inference_mode():
        before = head(bags, mask)
        turn_round(head, ("tumour", "normal"))
        after = head(bags, mask)
    assert before.slide_logit.abs().min() > 0
    assert torch.equal(before.slide_logit, -after.slide_logit)
    assert torch.equal(before.tile_logit, -after.tile_logit)
    assert torch.equal(before.attention, after.attention)


def test_features_in_files_must_be_of_the_bundles_tiles(
    folder: Path,
    ask: Callable[..., TrainingRequest],
    scout: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trained by a path relative to one folder, calibrated from another."""
    facts = FeatureFacts(encoder=scout, tile_px=50, mpp=4.0)
    table = pd.read_csv(folder / "slides.csv").head(24)
    table["file"] = [f"features/{slide}.zarr" for slide in table["slide"]]
    table.to_csv(tmp_path / "slides.csv", index=False)
    (tmp_path / "features").mkdir()

    def write(row: int, told: FeatureFacts) -> None:
        path = tmp_path / "features" / f"s{row}.zarr"
        shutil.rmtree(path, ignore_errors=True)
        bag = bag_of(row)
        corners = np.zeros((len(bag), 2))
        write_features(path, "zarr", told, corners, [bag], feature_size=WIDTH)

    for row in range(24):
        write(row, facts)
    columns = {"label": "diagnosis", "features": "file"}
    monkeypatch.chdir(tmp_path)
    request = ask(table=Path("slides.csv"), features=None, encoder_name=None, splits=None)
    request = replace(request, columns=columns, folds=2, epochs=12)
    run_request(request, Path("run"), SERIAL)
    monkeypatch.chdir("/")
    report = calibrate_run(BundleRequest(tmp_path / "run", tmp_path / "b", SCOUT))
    card = load_bundle(tmp_path / "b").card
    assert card.rule_out is None
    assert card.conformal is None
    assert card.novelty is None, "too few validation slides, and so no reference in the weights"
    said = " ".join(report.warnings)
    assert "No slide is ruled out" in said
    assert "There is no conformal rule" in said
    assert "Nothing is called novel" in said
    assert set(report.warnings) <= set(card.limits)
    assert "so the score of the lowest" in card.slide_threshold.chosen
    for row in range(24):
        write(row, replace(facts, mpp=2.0))
    with pytest.raises(UsageError, match="50 px at 2 um/px") as caught:
        calibrate_run(BundleRequest(tmp_path / "run", tmp_path / "c", SCOUT))
    assert caught.value.code == "E_FEATURES_MIXED"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": {"label": "age"}, "classes": (), "regress": True}, "of a number"),
        (
            {"columns": {"patient": "slide", "time": "months", "event": "died"}, "classes": ()},
            "of survival",
        ),
        ({"columns": {"label": "grade"}, "classes": (), "splits": None}, "3: high, low, middle"),
        ({"covariates": ("age",)}, r"covariates \(age\)"),
    ],
    ids=["number", "survival", "three", "covariates"],
)
def test_studies_that_no_bundle_can_be_made_of_are_refused(
    ask: Callable[..., TrainingRequest], tmp_path: Path, change: dict[str, object], message: str
) -> None:
    from slidetriage.workflows.research.study_file import STUDY, write_study

    (tmp_path / "run").mkdir()
    write_study(tmp_path / "run" / STUDY, ask(**change))
    with pytest.raises(UsageError, match=message):
        calibrate_run(BundleRequest(tmp_path / "run", tmp_path / "b", SCOUT))
    assert not (tmp_path / "b").exists()


def test_a_training_that_is_not_there_or_of_another_table_is_refused(
    folder: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "b"
    shutil.copytree(runs["clam_sb"], run)
    with pytest.raises(UsageError, match="no training 'fold-9'") as caught:
        calibrate_run(BundleRequest(run, out, SCOUT, "fold-9"))
    assert caught.value.mend == "It has fold-0-seed-0, fold-1-seed-0."
    with pytest.raises(UsageError, match="no class 'cyst'"):
        calibrate_run(BundleRequest(run, out, SCOUT, positive="cyst"))
    with pytest.raises(UsageError, match=r"study\.json"):
        calibrate_run(BundleRequest(folder, out, SCOUT))
    study = json.loads((run / "study.json").read_text())
    table = pd.read_csv(folder / "slides.csv")
    table.loc[0, "patient"] = "another"
    table.to_csv(tmp_path / "slides.csv", index=False)
    changed = study | {"table": str(tmp_path / "slides.csv")}
    (run / "study.json").write_text(json.dumps(changed))
    with pytest.raises(UsageError, match="trained on another table"):
        calibrate_run(BundleRequest(run, out, SCOUT))
    (run / "study.json").write_text(json.dumps(study))
    (run / "trainings" / "fold-0-seed-0" / "result.json").unlink()
    with pytest.raises(UsageError, match="not trained to its end"):
        calibrate_run(BundleRequest(run, out, SCOUT))
    assert not out.exists()


def test_changed_weights_are_noticed(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["clam_sb"], run)
    other = runs["clam_sb"] / "trainings" / "fold-1-seed-0" / "model.safetensors"
    shutil.copy(other, run / "trainings" / "fold-0-seed-0" / "model.safetensors")
    with pytest.raises(UsageError, match="the weights have changed since"):
        calibrate_run(BundleRequest(run, tmp_path / "b", SCOUT))
    other = runs["gated_attention"] / "trainings" / "fold-0-seed-0" / "model.safetensors"
    shutil.copy(other, run / "trainings" / "fold-0-seed-0" / "model.safetensors")
    with pytest.raises(ModelError, match="missing from the weights"):
        calibrate_run(BundleRequest(run, tmp_path / "b", SCOUT))


def test_another_encoder_is_refused(
    ask: Callable[..., TrainingRequest], tmp_path: Path, scout: str
) -> None:
    run_request(ask(encoder_name="simulated", epochs=1), tmp_path / "run", SERIAL)
    with pytest.raises(
        UsageError, match=f"of simulated, but breast-idc-scout is {scout}"
    ) as caught:
        calibrate_run(BundleRequest(tmp_path / "run", tmp_path / "b", SCOUT))
    assert caught.value.code == "E_FEATURES_MIXED"


@pytest.mark.slow
def test_a_bundle_normalises_stains_as_its_features_were(
    ask: Callable[..., TrainingRequest], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).gamma(9, 20, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "target.png")
    stained = StainedEncoder(SCOUT, fit_stain("reinhard", tmp_path / "target.png"))
    identity = stained(Device("cpu")).identity
    run = tmp_path / "run"
    run_request(ask(encoder_name=identity, head="mean", arguments=()), run, SERIAL)
    with pytest.raises(UsageError, match=r"\+reinhard-.* but breast-idc-scout is") as caught:
        calibrate_run(BundleRequest(run, tmp_path / "b", SCOUT))
    assert "--stain-target" in caught.value.mend
    options = ["calibrate", str(run), "--out", str(tmp_path / "b"), "--stain-method", "reinhard"]
    options += ["--stain-target", str(tmp_path / "target.png")]
    made = CliRunner().invoke(app, options)
    assert made.exit_code == 0, made.output
    assert load_bundle(tmp_path / "b").card.stain_normaliser == stained.stain
    # The encoder's weights lie in another file now, and stain and transform are the same.
    again = BundleEncoder(str(tmp_path / "b"))(Device("cpu"))
    assert again.stain == stained.stain
    assert again.identity.rpartition("-")[2] == identity.rpartition("-")[2]


def test_a_head_that_cannot_be_turned_round_says_so(
    ask: Callable[..., TrainingRequest], tmp_path: Path
) -> None:
    run_request(ask(head="dsmil", arguments=(), epochs=1), tmp_path / "run", SERIAL)
    with pytest.raises(UsageError, match="cannot be turned round") as caught:
        calibrate_run(BundleRequest(tmp_path / "run", tmp_path / "b", SCOUT, positive="normal"))
    assert "'normal' last" in caught.value.mend


def test_names_and_shares_that_cannot_be_are_refused() -> None:
    for name in ("Model", "my model", "", "-a"):
        with pytest.raises(UsageError, match="cannot name a bundle"):
            Wording(name=name)
    for option in ("sensitivity", "rule_out", "error_rate", "familiar"):
        for value in (0.0, 1.0, -0.1, float("nan")):
            with pytest.raises(UsageError, match=option.replace("_", "-")):
                Wishes(**{option: value})  # type: ignore[arg-type]  # a share
    with pytest.raises(UsageError, match="no calibration 'beta'"):
        Wishes("beta")  # type: ignore[arg-type]  # wrong on purpose
