"""`slidetriage compare` over real files: studies' folders and tables of other tools."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest
import typer
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from simulated_predictions import simulate
from slidetriage.errors import UsageError
from slidetriage.workflows.research import comparing
from slidetriage.workflows.research.compare_command import compare, name_models
from slidetriage.workflows.research.prediction_files import write_predictions
from slidetriage.workflows.research.predictions import Predictions

app = typer.Typer()
app.command()(compare)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of resamples take seconds and change nothing that is asked for here."""
    monkeypatch.setattr(comparing, "compare", partial(comparing.compare, repeats=30))


def blur(p: Predictions, seed: int) -> Predictions:
    score = np.random.default_rng(seed).dirichlet([2, 2], len(p)) + p.score
    return replace(p, score=score / score.sum(axis=1, keepdims=True))


@pytest.fixture
def studies(tmp_path: Path) -> list[Path]:
    """Two folders as `slidetriage train` leaves them."""
    for name, p in {"mean": blur(simulate(), 1), "clam": simulate()}.items():
        (tmp_path / name).mkdir()
        write_predictions(tmp_path / name / "predictions.csv", p)
    return [tmp_path / "mean", tmp_path / "clam"]


@pytest.fixture
def brought(studies: list[Path], tmp_path: Path) -> Path:
    """A table of another tool: no folds, no validation, one score, rows in another order."""
    table = pd.read_csv(studies[1] / "predictions.csv")
    table = table[table["part"] == "test"].sample(frac=0.9, random_state=0)
    table["score"] = table["p tumour"].round(1)
    path = tmp_path / "brought.csv"
    table[["slide", "patient", "label", "score"]].to_csv(path, index=False)
    return path


def test_a_line_for_each_comparison(studies: list[Path], brought: Path, tmp_path: Path) -> None:
    found = CliRunner().invoke(
        app, [*map(str, studies), str(brought), "--out", str(tmp_path / "out")]
    )
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert len(lines) == 3
    assert "clam's" in lines[0]
    assert "mean's" in lines[0]
    assert "brought's" in lines[1]
    assert lines[2] == f"Comparison: {tmp_path / 'out' / 'compare.html'}"
    assert (tmp_path / "out" / "compare.html").exists()


def test_the_json_is_the_file(studies: list[Path], brought: Path, tmp_path: Path) -> None:
    options = [str(studies[0]), str(studies[1] / "predictions.csv"), str(brought)]
    options += ["--name", "A", "--name", "B", "--name", "C", "--title", "Heads", "--json"]
    found = CliRunner().invoke(app, [*options, "--out", str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    record = orjson.loads(found.stdout)
    assert record == orjson.loads((tmp_path / "out" / "compare.json").read_bytes())
    assert record["title"] == "Heads"
    assert [(pair["baseline"], pair["other"]) for pair in record["pairs"]] == [
        ("A", "B"), ("A", "C"),
    ]  # fmt: skip
    # By pandas and scikit-learn, on the slides that all three files have.
    kept = pd.read_csv(brought).set_index("slide").index
    areas = []
    for path, column in zip((*(s / "predictions.csv" for s in studies), brought),
                            ("p tumour", "p tumour", "score"), strict=True):  # fmt: skip
        table = pd.read_csv(path)
        if "part" in table:
            table = table[table["part"] == "test"]
        table = table.set_index("slide").loc[kept]
        areas.append(roc_auc_score(table["label"] == "tumour", table[column]))
    for pair, area in zip(record["pairs"], areas[1:], strict=True):
        first = pair["differences"][0]
        assert first["name"] == "AUC"
        assert first["baseline"] == pytest.approx(areas[0])
        assert first["other"] == pytest.approx(area)
    assert record["units"] == len(kept) == 144
    assert record["models"][0]["left_out"] == 160 - len(kept)


def test_a_score_is_about_the_class_of_the_first_table(tmp_path: Path) -> None:
    """`--classes` of a study need not be sorted; a table with `score` follows it."""
    p = simulate(classes=("tumour", "benign"))  # the positive one is benign here
    (tmp_path / "study").mkdir()
    write_predictions(tmp_path / "study" / "predictions.csv", p)
    table = pd.read_csv(tmp_path / "study" / "predictions.csv")
    table["score"] = table["p benign"]
    table[["slide", "patient", "fold", "part", "label", "score"]].to_csv(
        tmp_path / "same.csv", index=False
    )
    options = [str(tmp_path / "study"), str(tmp_path / "same.csv"), "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(app, [*options, "--json"])
    assert found.exit_code == 0, found.output
    record = orjson.loads(found.stdout)
    assert record["classes"] == ["tumour", "benign"]
    assert [each["difference"]["value"] for each in record["pairs"][0]["differences"]] == [0] * 7
    turned = CliRunner().invoke(app, [*options[1::-1], *options[2:]])
    assert isinstance(turned.exception, UsageError)
    assert "another order" in str(turned.exception)
    told = CliRunner().invoke(app, [*options[1::-1], *options[2:], "--classes", "tumour, benign"])
    assert told.exit_code == 0, told.output


def test_models_are_called_after_their_folders_and_files(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    paths = [tmp_path / "one", tmp_path / "two" / "predictions.csv", tmp_path / "three.csv"]
    assert name_models(paths, ()) == ("one", "two", "three")
    assert name_models(paths, ("x", "y", "z")) == ("x", "y", "z")


@pytest.mark.parametrize(
    ("paths", "names", "words"),
    [
        (["a.csv"], [], "nothing to compare with"),
        (["a.csv", "b.csv"], ["x"], "1 names for 2 models"),
        (["s/a.csv", "t/a.csv"], [], "Two models are called 'a'"),
        (["a.csv", "b.csv"], ["x", "x"], "Two models are called 'x'"),
        (["a.csv", "b.csv"], ["x", " "], "or one has no name"),
    ],
)
def test_names_that_do_not_tell_models_apart(
    paths: list[str], names: list[str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        name_models([Path(path) for path in paths], names)


def test_a_file_that_is_not_there_is_named(studies: list[Path], tmp_path: Path) -> None:
    found = CliRunner().invoke(
        app, [str(studies[0]), str(tmp_path / "no.csv"), "--out", str(tmp_path / "out")]
    )
    assert isinstance(found.exception, UsageError)
    assert "no.csv" in str(found.exception)
    assert not (tmp_path / "out").exists()
