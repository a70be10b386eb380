"""What a score is worth, as plain numbers: calibration, conformal rule, novelty.

Only numpy is needed to apply them; `slidetriage.models.evaluation` fits them.
"""

from .calibrator import Calibrator, as_class_logits, as_logits
from .conformal_rule import ConformalRule, Verdict
from .novelty_reference import NoveltyReference, slide_distance

__all__ = [
    "Calibrator",
    "ConformalRule",
    "NoveltyReference",
    "Verdict",
    "as_class_logits",
    "as_logits",
    "slide_distance",
]
