"""Whether a model's predictions can be trusted: statistics over arrays of labels and scores."""

from slidetriage.models.trust import Calibrator, ConformalRule, NoveltyReference

from .calibration import fit_isotonic, fit_platt, fit_temperature
from .comparison import (
    DeLong,
    McNemar,
    PairedDifference,
    binary_statistics,
    delong_test,
    holm,
    mcnemar_test,
    number_statistics,
    paired_difference,
    survival_statistics,
)
from .concordance import Concordance, harrell_concordance, uno_concordance
from .conformal import Coverage, coverage, fit_conformal
from .cox import CoxFit, CoxTerm, fit_cox
from .decision import DecisionCurve, RuleOut, decision_curve, rule_out
from .discrimination import (
    Confusion,
    PrecisionRecallCurve,
    RocCurve,
    auc,
    average_precision,
    confusion_at,
    ppv_on_grid,
    precision_recall_curve,
    roc_curve,
    sensitivity_on_grid,
)
from .intervals import Band, Interval, PatientBootstrap, wilson_interval
from .multiclass import class_balanced_accuracy, class_confusion, multiclass_auc
from .novelty import fit_novelty, novelty_threshold, slide_distance
from .regression import RegressionFigures, regression_figures
from .reliability import (
    BrierParts,
    CalibrationError,
    CalibrationLine,
    ReliabilityCurve,
    brier_parts,
    brier_score,
    calibration_error,
    calibration_line,
    reliability_curve,
)
from .sites import SiteFolds, SiteRound, leave_site_out, site_folds
from .splits import Split, check_splits, nested_splits, patient_folds
from .subgroups import RULE, SubgroupFigure, Subgroups
from .survival import (
    LogRank,
    SurvivalCurve,
    kaplan_meier,
    log_rank,
    risk_boundaries,
    risk_groups,
)
from .thresholds import positives_needed, threshold_at_sensitivity

__all__ = [
    "RULE",
    "Band",
    "BrierParts",
    "CalibrationError",
    "CalibrationLine",
    "Calibrator",
    "Concordance",
    "ConformalRule",
    "Confusion",
    "Coverage",
    "CoxFit",
    "CoxTerm",
    "DeLong",
    "DecisionCurve",
    "Interval",
    "LogRank",
    "McNemar",
    "NoveltyReference",
    "PairedDifference",
    "PatientBootstrap",
    "PrecisionRecallCurve",
    "RegressionFigures",
    "ReliabilityCurve",
    "RocCurve",
    "RuleOut",
    "SiteFolds",
    "SiteRound",
    "Split",
    "SubgroupFigure",
    "Subgroups",
    "SurvivalCurve",
    "auc",
    "average_precision",
    "binary_statistics",
    "brier_parts",
    "brier_score",
    "calibration_error",
    "calibration_line",
    "check_splits",
    "class_balanced_accuracy",
    "class_confusion",
    "confusion_at",
    "coverage",
    "decision_curve",
    "delong_test",
    "fit_conformal",
    "fit_cox",
    "fit_isotonic",
    "fit_novelty",
    "fit_platt",
    "fit_temperature",
    "harrell_concordance",
    "holm",
    "kaplan_meier",
    "leave_site_out",
    "log_rank",
    "mcnemar_test",
    "multiclass_auc",
    "nested_splits",
    "novelty_threshold",
    "number_statistics",
    "paired_difference",
    "patient_folds",
    "positives_needed",
    "ppv_on_grid",
    "precision_recall_curve",
    "regression_figures",
    "reliability_curve",
    "risk_boundaries",
    "risk_groups",
    "roc_curve",
    "rule_out",
    "sensitivity_on_grid",
    "site_folds",
    "slide_distance",
    "survival_statistics",
    "threshold_at_sensitivity",
    "uno_concordance",
    "wilson_interval",
]
