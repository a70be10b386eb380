"""`slidetriage train`: what is asked for is done, and what makes no sense is refused at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest
from typer.testing import CliRunner

from slidetriage.errors import UsageError
from slidetriage.workflows.cli import app
from slidetriage.workflows.research.training_options import TrainingRequest
from slidetriage.workflows.research.training_run import make_rounds, make_study, run_request
from slidetriage.workflows.research.trainings import Outcome
from slidetriage.workflows.resources import Resources

SITES = ("A", "B", "C", "D", "E", "F", "G", "H")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 slides of as many patients at eight sites; the tiles of tumours are shifted."""
    folder = tmp_path_factory.mktemp("request")
    rng = np.random.default_rng(0)
    label = np.arange(48) % 2
    bags = [rng.normal(1.0 * each, 1, (6, 5)) for each in label]
    pd.DataFrame(
        {
            "slide": [f"s{n}" for n in range(48)],
            "patient": [f"P{n}" for n in range(48)],
            "hospital": [SITES[n // 6] for n in range(48)],
            "diagnosis": np.where(label == 1, "tumour", "normal"),
            "size": 10.0 + 5 * label,
            "part": ["train", "train", "val", "test"] * 12,
        }
    ).to_csv(folder / "slides.csv", index=False)
    np.savez(
        folder / "bags.npz",
        features=np.concatenate(bags).astype(np.float32),
        offsets=np.arange(49) * 6,
        slide_id=np.array([f"s{n}" for n in range(48)]),
    )
    return folder / "slides.csv"


@pytest.fixture
def request_(table: Path) -> TrainingRequest:
    return TrainingRequest(
        table=table,
        features=table.with_name("bags.npz"),
        encoder_name="simulated",
        columns={"label": "diagnosis", "site": "hospital"},
        classes=("normal", "tumour"),
        arguments=("hidden=16", "attention=8"),
        epochs=10,
        rate=5e-3,
        folds=3,
    )


def test_the_command_trains_and_says_how_well(table: Path, tmp_path: Path) -> None:
    options = ["train", str(table), "--features", str(table.with_name("bags.npz")), "--out"]
    options += [str(tmp_path / "out"), "--encoder-name", "simulated", "--label-column"]
    options += ["diagnosis", "--classes", "normal,tumour", "--folds", "3", "--epochs", "10"]
    options += ["--rate", "0.005", "--head", "max", "--engine", "serial"]
    found = CliRunner().invoke(app, [*options, "--json"])
    assert found.exit_code == 0, found.output
    record = orjson.loads(found.stdout)
    assert record["figure"] == "AUC"
    assert [row["training"] for row in record["trainings"]] == [
        f"fold {number}, seed 0" for number in range(3)
    ]
    assert record["mean"] == pytest.approx(np.mean([row["test"] for row in record["trainings"]]))
    assert record["mean"] > 0.8
    again = CliRunner().invoke(app, options)
    assert again.exit_code == 0, again.output
    assert f"Mean test AUC: {record['mean']:.3f}; 48 slides, 0 left out." in again.stdout
    assert "For Research Use Only" in again.stdout
    found = CliRunner().invoke(
        app, ["evaluate", str(tmp_path / "out"), "--title", "Trial", "--fact", "Head=max", "--json"]
    )
    assert found.exit_code == 0, found.output
    report = orjson.loads(found.stdout)
    assert report["title"] == "Trial"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "For Research Use Only" in page
    assert orjson.loads((tmp_path / "out" / "report.json").read_bytes()) == report
    predictions = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert sorted(predictions[predictions["part"] == "test"]["slide"]) == sorted(
        pd.read_csv(table)["slide"]
    )


def test_sites_are_kept_whole_where_that_is_asked_for(request_: TrainingRequest) -> None:
    request = replace(request_, keep_sites=True, folds=4)
    study = make_study(request)
    rounds, _ = make_rounds(request, study)
    assert study.cohort.sites is not None
    sites = np.array(study.cohort.sites)
    tested = [set(sites[split.test]) for _, split in rounds]
    assert sorted(site for part in tested for site in part) == list(SITES)
    for (_, split), held_out in zip(rounds, tested, strict=True):
        assert not held_out & set(sites[split.train])


def test_a_given_split_is_taken(request_: TrainingRequest, table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table)
    frame.assign(fold=7)[["fold", "part", "slide"]].rename(columns={"slide": "slide_id"}).to_csv(
        tmp_path / "splits.csv", index=False
    )
    request = replace(request_, splits=tmp_path / "splits.csv")
    ((name, split),) = make_rounds(request, make_study(request))[0]
    assert name == "fold 7"
    assert split.test.tolist() == list(range(3, 48, 4))
    assert split.validation.tolist() == list(range(2, 48, 4))


def test_patients_in_two_parts_of_a_given_split_are_refused_or_said(
    request_: TrainingRequest, table: Path, tmp_path: Path
) -> None:
    frame = pd.read_csv(table)
    frame.loc[3, "patient"] = "P0"  # tested, and learned from
    frame.drop(columns="part").to_csv(tmp_path / "slides.csv", index=False)
    frame.assign(fold=0)[["fold", "part", "slide"]].rename(columns={"slide": "slide_id"}).to_csv(
        tmp_path / "splits.csv", index=False
    )
    request = replace(request_, table=tmp_path / "slides.csv", splits=tmp_path / "splits.csv")
    study = make_study(request)
    with pytest.raises(UsageError, match="P0"):
        make_rounds(request, study)
    ((_, kept),), warnings = make_rounds(replace(request, shared_patients="keep"), study)
    assert 0 in kept.train
    assert "figures flatter" in warnings[0]
    ((_, dropped),), warnings = make_rounds(replace(request, shared_patients="drop"), study)
    assert 0 not in dropped.train
    assert 3 in dropped.test
    assert "1 patients stood in two parts" in warnings[0]


def test_a_number_can_be_learned(request_: TrainingRequest, tmp_path: Path) -> None:
    columns = {"label": "size"}
    request = replace(request_, columns=columns, classes=(), regress=True, epochs=30, seeds=2)
    told: list[tuple[int, Outcome]] = []
    report = run_request(
        request,
        tmp_path,
        Resources("serial"),
        follow=lambda count, outcome: told.append((count, outcome)),
    )
    assert [count for count, _ in told] == [6] * 6
    tested = np.concatenate([outcome.test for outcome in report.outcomes])
    found = np.concatenate([outcome.predictions[:, 0] for outcome in report.outcomes])
    labels = np.asarray(report.study.cohort.labels)
    assert np.abs(found - labels[tested]).mean() < np.abs(labels - labels.mean()).mean() * 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "magic"}, "no head 'magic'"),
        ({"arguments": ("colour=red",)}, "'colour=red' is no argument of the head"),
        ({"arguments": ("hidden",)}, "'hidden' is no argument of the head"),
        ({"exclude": ("everything",)}, "knows no 'everything'"),
        ({"keep_sites": True, "columns": {"label": "diagnosis"}}, "needs to know the sites"),
        ({"folds": 30}, "fewer than the 30 folds"),
        ({"encoder_name": None}, "encoder"),
        ({"columns": {"label": "grade"}}, "'grade'"),
        ({"columns": {}}, "No column holds the label"),
        ({"epochs": 0}, "epochs is 0"),
        ({"splits": Path("s.csv"), "shared_patients": "hide"}, "--shared-patients is 'hide'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_trained(
    request_: TrainingRequest, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    request = replace(request_, **change)  # type: ignore[arg-type]  # wrong on purpose, some of it
    with pytest.raises(UsageError, match=message):
        run_request(request, tmp_path / "out", Resources("serial"))
    assert not (tmp_path / "out").exists()


def test_a_recipe_has_what_was_asked_for(request_: TrainingRequest) -> None:
    asked = ("batch=4", "patience=3", "tile_dropout=0.25", "mixed_precision=true", "clip=1")
    recipe = make_study(replace(request_, recipe=asked)).method.recipe
    found = (recipe.batch, recipe.patience, recipe.tile_dropout, recipe.mixed_precision)
    assert found == (4, 3, 0.25, True)
    assert (recipe.clip, recipe.epochs, recipe.rate) == (1, 10, 5e-3)
    assert (
        make_study(replace(request_, recipe=("most_tiles=null",))).method.recipe.most_tiles is None
    )


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("batch", "no part of a recipe"),
        ("epochs=3", "no part of a recipe"),
        ("spin=3", "no part of a recipe"),
        ("batch=many", "no value of batch"),
        ("batch=2.5", "no value of batch"),
        ("mixed_precision=1", "no value of mixed_precision"),
        ("batch=0", "at least 1"),
        ("tile_dropout=1.5", "tile_dropout must lie"),
    ],
)
def test_what_is_no_recipe_is_refused(request_: TrainingRequest, part: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_study(replace(request_, recipe=(part,)))
