"""Slide models on data with published figures: every head, on given and on drawn folds.

    python benchmarks/mil.py tcga [--heads mean gated_attention ...] [--seeds 1]
    python benchmarks/mil.py classic
    python benchmarks/mil.py survival
    python benchmarks/mil.py sites
    python benchmarks/mil.py trust

`tcga`: TCGA breast, IDC against ILC, the ten folds that came with the features; the mean
test AUC beside the validation AUC, by which alone a head may be chosen, and a floor: logistic
regression on mean, sd and max of the features. `classic`: MUSK1 and ELEPHANT, ten folds five times.
`survival`: concordance by patient from slides, from age, and from both. `sites`: random folds,
folds that keep sites apart, and each large site left out. `trust`: what predictions of patients
not learned from promise and keep, over 50 random halves of the patients: calibration, conformal
coverage, rule-out. Add --json for one object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from brca import pool_bags, study_survival, study_tcga
from mosaic import default_data
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from slidetriage.models.evaluation import (
    Split,
    auc,
    calibration_error,
    coverage,
    fit_conformal,
    fit_cox,
    fit_platt,
    fit_temperature,
    harrell_concordance,
    leave_site_out,
    patient_folds,
    rule_out,
    site_folds,
    threshold_at_sensitivity,
)
from slidetriage.models.heads import list_heads
from slidetriage.models.learning import Recipe
from slidetriage.workflows.research.cross_validation import (
    draw_rounds,
    list_trainings,
    run_trainings,
    split_round,
)
from slidetriage.workflows.research.given_splits import read_splits
from slidetriage.workflows.research.study import Method, Study, make_bags
from slidetriage.workflows.research.tables import ColumnNames, read_cohort
from slidetriage.workflows.research.trainings import Outcome
from slidetriage.workflows.resources import Resources

# As Ilse et al. trained: a fixed number of epochs, and no bags held out to stop by.
CLASSIC = Recipe(
    epochs=60, batch=1, rate=5e-4, weight_decay=5e-3, patience=60, least_epochs=60, warm_up=0
)
CLASSIC_SIZES = {"hidden": 64, "attention": 64, "dropout": 0.5, "layers": 3}
# A bag here has 27 rows in the middle and 122 at most; the authors' 256 landmarks, made for 8,000,
# would pad every one of them to 256.
TCGA_SIZES = {"transmil": {"landmarks": 32}}
TCGA = Recipe(epochs=40, batch=16, rate=3e-4, weight_decay=1e-2, patience=8, tile_dropout=0.2)


def aucs(study: Study, outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Mean and sd over the trainings, on validation and on test."""
    assert study.cohort.labels is not None
    labels = study.cohort.labels == 1
    test = [auc(labels[o.test], o.predictions[:, 1]) for o in outcomes]
    chosen = [auc(labels[o.validation], o.validation_predictions[:, 1]) for o in outcomes]
    return {
        "validation_auc": round(float(np.mean(chosen)), 4),
        "test_auc": round(float(np.mean(test)), 4),
        "test_sd": round(float(np.std(test, ddof=1)), 4),
        "each": [round(float(value), 4) for value in test],
        "epochs": round(float(np.mean([len(o.history) for o in outcomes])), 1),
        "seconds": round(sum(o.seconds for o in outcomes), 1),
    }


def floor(study: Study, rounds: Sequence[tuple[str, Split]]) -> dict[str, object]:
    """Logistic regression on pooled features, trained on training and validation slides."""
    pooled, labels = pool_bags(study), np.asarray(study.cohort.labels)
    test = []
    for _, split in rounds:
        rows = np.concatenate([split.train, split.validation])
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000)
        )
        model.fit(pooled[rows], labels[rows])
        test.append(auc(labels[split.test], model.predict_proba(pooled[split.test])[:, 1]))
    return {
        "test_auc": round(float(np.mean(test)), 4),
        "test_sd": round(float(np.std(test, ddof=1)), 4),
    }


def measure_tcga(args: argparse.Namespace, work: Path) -> dict[str, object]:
    """Every head on the given folds."""
    found: dict[str, object] = {}
    for head in args.heads or list_heads():
        method = Method(head=head, arguments=TCGA_SIZES.get(head, {}), recipe=TCGA)
        study = study_tcga(args.data, method, args.covariates)
        folder = args.data / "mil" / "tcga_brca"
        given = read_splits(folder / "splits.csv", study.cohort, shared=args.shared)
        rounds = [(f"fold {g.name}", Split(g.train, g.val, g.test)) for g in given]
        if "floor" not in found:
            found["floor"] = floor(study, rounds)
            found["patients_in_two_parts"] = sum(len(g.shared_patients) for g in given)
            say(args, "floor", found["floor"])
        trainings = list_trainings(study, rounds, seeds=range(args.seeds), out=work / head)
        begin = time.perf_counter()
        figures = aucs(study, run_trainings(trainings, resources(args)))
        found[head] = figures | {"wall_s": round(time.perf_counter() - begin, 1)}
        say(args, head, found[head])
    return found


def without_validation(rounds: Sequence[tuple[str, Split]]) -> list[tuple[str, Split]]:
    """Everything but the test bags is trained on, and by its own loss the last weights are kept."""
    found = []
    for name, split in rounds:
        rest = np.concatenate([split.train, split.validation])
        found.append((name, Split(rest, rest, split.test)))
    return found


def measure_classic(args: argparse.Namespace, work: Path) -> dict[str, object]:
    """Ten folds five times; the mean accuracy over the runs, and their sd."""
    found: dict[str, object] = {}
    for name in args.sets:
        with np.load(args.data / "mil" / f"{name}.npz") as arrays:
            order = np.argsort(arrays["bag_ids"], kind="stable")
            ids, first, counts = np.unique(
                arrays["bag_ids"][order], return_index=True, return_counts=True
            )
            labels = arrays["labels"][order][first]
            path = work / f"{name}.npz"
            np.savez(
                path,
                features=arrays["features"][order],
                offsets=np.concatenate([[0], np.cumsum(counts)]),
                slide_id=ids.astype(str),
            )
        table = work / f"{name}.csv"
        pd.DataFrame({"slide": ids, "patient": ids, "label": labels}).to_csv(table, index=False)
        for head in args.heads or ["gated_attention", "attention"]:
            arguments = CLASSIC_SIZES if "attention" in head else {}
            method = Method(head=head, arguments=arguments, recipe=CLASSIC)
            cohort = read_cohort(table, ColumnNames(label="label"))
            study = Study(cohort, path, "given", method)
            runs = []
            for seed in range(args.seeds if args.seeds > 1 else 5):
                rounds = without_validation(draw_rounds(study, folds=10, seed=seed))
                trainings = list_trainings(
                    study, rounds, seeds=[seed], out=work / f"{name}-{head}-{seed}"
                )
                right = [
                    (o.predictions.argmax(1) == labels[o.test]).mean()
                    for o in run_trainings(trainings, resources(args))
                ]
                runs.append(float(np.mean(right)))
            found[f"{name} {head}"] = {
                "accuracy": round(float(np.mean(runs)), 4),
                "sd_of_runs": round(float(np.std(runs, ddof=1)), 4),
            }
            say(args, f"{name} {head}", found[f"{name} {head}"])
    return found


def measure_survival(args: argparse.Namespace, work: Path) -> dict[str, object]:
    """Concordance over five folds of patients, pooled within folds."""
    found: dict[str, object] = {}
    recipe = Recipe(epochs=40, batch=256, rate=3e-4, weight_decay=1e-2, patience=8)
    for name, covariates in (("slides", ()), ("slides and age", ("age",))):
        method = Method(head=(args.heads or ["gated_attention"])[0], recipe=recipe)
        study = study_survival(args.data, method, covariates)
        rounds = draw_rounds(study, folds=5, seed=0)
        trainings = list_trainings(
            study, rounds, seeds=range(args.seeds), out=work / name.replace(" ", "-")
        )
        bags = make_bags(study, study.open())
        each = [
            harrell_concordance(bags.labels[o.test], bags.events[o.test], o.predictions[:, 0]).value
            for o in run_trainings(trainings, resources(args))
        ]
        found[name] = {
            "concordance": round(float(np.mean(each)), 4),
            "sd": round(float(np.std(each, ddof=1)), 4),
        }
        say(args, name, found[name])
        if covariates:
            ages = np.array([study.cohort.covariates[0].values[rows[0]] for rows in study.units()])
            ages = np.where(np.isnan(ages), np.nanmean(ages), ages)
            alone = []
            for _, split in rounds:
                rows = np.concatenate([split.train, split.validation])
                fit = fit_cox(
                    bags.labels[rows], bags.events[rows], ages[rows][:, None], names=("age",)
                )
                risk = fit.risk(ages[split.test])
                alone.append(
                    harrell_concordance(
                        bags.labels[split.test], bags.events[split.test], risk
                    ).value
                )
            found["age alone (Cox)"] = {
                "concordance": round(float(np.mean(alone)), 4),
                "sd": round(float(np.std(alone, ddof=1)), 4),
            }
            say(args, "age alone (Cox)", found["age alone (Cox)"])
    return found


def measure_sites(args: argparse.Namespace, work: Path) -> dict[str, object]:
    """Random folds, folds that keep sites whole, and each large site left out."""
    method = Method(head=(args.heads or ["gated_attention"])[0], recipe=TCGA)
    study = study_tcga(args.data, method, args.covariates)
    cohort = study.cohort
    labels = np.asarray(cohort.labels)
    found: dict[str, object] = {}
    kept = site_folds(cohort.sites, labels, cohort.patients, folds=5, seed=0)
    ways: dict[str, list[tuple[str, Split]]] = {
        "random folds": draw_rounds(study, folds=5, seed=0),
        "sites kept whole": [
            (f"fold {k}", split_round(study, np.flatnonzero(kept.fold == k), seed=0))
            for k in range(5)
        ],
    }
    alone = [r for r in leave_site_out(cohort.sites, labels, cohort.patients) if len(r.test) >= 40]
    ways["a site left out"] = [
        (f"site {r.site}", split_round(study, np.asarray(r.test), seed=0)) for r in alone
    ]
    for name, rounds in ways.items():
        trainings = list_trainings(
            study, rounds, seeds=range(args.seeds), out=work / name.replace(" ", "-")
        )
        outcomes = run_trainings(trainings, resources(args))
        found[name] = aucs(study, outcomes) | {"rounds": [r for r, _ in rounds]}
        say(args, name, found[name])
    return found


def measure_trust(args: argparse.Namespace, work: Path) -> dict[str, object]:
    """Fit on a random half of the patients and measure on the other, fifty times."""
    method = Method(head=(args.heads or ["gated_attention"])[0], recipe=TCGA)
    study = study_tcga(args.data, method, args.covariates)
    rounds = draw_rounds(study, folds=5, seed=0)
    outcomes = run_trainings(
        list_trainings(study, rounds, seeds=range(args.seeds), out=work), resources(args)
    )
    score = np.zeros(len(study.cohort))
    for outcome in outcomes:
        score[outcome.test] += outcome.predictions[:, 1] / args.seeds
    label, patients = np.asarray(study.cohort.labels), np.array(study.cohort.patients)
    rows: list[dict[str, float]] = []
    for seed in range(50):
        half = patient_folds(patients, label, folds=2, seed=seed)
        fit, held = half == 0, half == 1
        # Classes weighed alike in training shift the intercept, which a temperature cannot mend.
        heat = fit_temperature(label[fit], score[fit])
        scale = fit_platt(label[fit], score[fit])
        fitted, calibrated = scale.apply(score[fit]), scale.apply(score[held])
        row = {
            "ECE as trained": calibration_error(label[held], score[held]).value,
            "ECE with a temperature": calibration_error(label[held], heat.apply(score[held])).value,
            "ECE after Platt": calibration_error(label[held], calibrated).value,
        }
        for rate in (0.05, 0.10):
            for per_class in (False, True):
                rule = fit_conformal(
                    label[fit], fitted, error_rate=rate, label_conditional=per_class
                )
                found = coverage(label[held], rule.sets(calibrated))
                name = f"{1 - rate:.0%}{' by class' if per_class else ''}"
                row[f"coverage at {name}"] = found.overall
                row[f"needs eyes at {name}"] = found.abstained_share
        for wanted in (0.99, 0.95):
            spared = rule_out(
                label[held], calibrated, threshold_at_sensitivity(label[fit], fitted, wanted)
            )
            row[f"ruled out at {wanted:.0%}"] = spared.slides_share
            row[f"sensitivity kept at {wanted:.0%}"] = spared.sensitivity
        rows.append(row)
    table = pd.DataFrame(rows)
    found_figures: dict[str, object] = {
        name: {
            "mean": round(float(table[name].mean()), 4),
            "sd": round(float(table[name].std()), 4),
        }
        for name in table
    }
    for name, figures in found_figures.items():
        say(args, name, figures)
    return found_figures


def resources(args: argparse.Namespace) -> Resources:
    """Worker processes, or this one."""
    return Resources(args.engine, args.workers)


def say(args: argparse.Namespace, name: str, figures: object) -> None:
    """Print a row as soon as it is known."""
    print(f"{name:22} {figures}", file=sys.stderr if args.json else sys.stdout, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["tcga", "classic", "survival", "sites", "trust"])
    parser.add_argument("--heads", nargs="*", default=None)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--covariates", nargs="*", default=[])
    parser.add_argument("--sets", nargs="*", default=["musk1", "elephant"], help="of `classic`")
    parser.add_argument("--shared", choices=["keep", "drop"], default="keep")
    parser.add_argument("--engine", default="dask")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--data", type=Path, default=default_data())
    args = parser.parse_args()
    measure = {
        "tcga": measure_tcga,
        "classic": measure_classic,
        "survival": measure_survival,
        "sites": measure_sites,
        "trust": measure_trust,
    }[args.what]
    with tempfile.TemporaryDirectory() as work:
        found = measure(args, Path(work))
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
