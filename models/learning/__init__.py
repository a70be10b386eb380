"""Training of slide models: targets, covariates, bags and the loop; arrays in, weights out."""

from .bags import Batch, LabelledBags, make_batch
from .covariates import CategoryCovariate, CovariateCoder, NumericCovariate
from .fusion import SlideModel
from .survival import cox_loss, discrete_time_loss, interval_of
from .targets import Classes, Cox, DiscreteTime, Labels, Regression, Target
from .training import Epoch, Recipe, Task, Trained, predict_logits, train

__all__ = [
    "Batch",
    "CategoryCovariate",
    "Classes",
    "CovariateCoder",
    "Cox",
    "DiscreteTime",
    "Epoch",
    "LabelledBags",
    "Labels",
    "NumericCovariate",
    "Recipe",
    "Regression",
    "SlideModel",
    "Target",
    "Task",
    "Trained",
    "cox_loss",
    "discrete_time_loss",
    "interval_of",
    "make_batch",
    "predict_logits",
    "train",
]
