"""Cards: what is written is read again, and nothing else is."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import pytest

from slidetriage.errors import ModelError
from slidetriage.models import Card, EncoderReference, NoveltyCard, StainCard
from slidetriage.models.trust import Calibrator, ConformalRule

MAY_BE_ABSENT = (
    "encoder_from", "stain_normaliser", "calibration", "rule_out", "conformal", "novelty",
    "vendors",
)  # fmt: skip
MAY_BE_LEFT_OUT = ("vendors",)


@pytest.fixture
def full_card(card: Card) -> Card:
    """A card of which nothing is absent."""
    return dataclasses.replace(
        card,
        encoder_from=EncoderReference("uni@" + "0" * 40, "uni-1"),
        stain_normaliser=StainCard("reinhard", (8.0, 1.0, 0.2, 0.5, 0.1, 0.1)),
        calibration=Calibrator("platt", (1.5, -0.25)),
        rule_out=dataclasses.replace(card.slide_threshold, value=0.1),
        conformal=ConformalRule((0.4, 0.3), 0.1, True, (40, 30)),
        novelty=NoveltyCard(1.4, 0.5, 0.95, 1.9, "20 slides"),
        vendors=("aperio", "hamamatsu"),
    )


def test_round_trip(card: Card) -> None:
    again = Card.from_json(card.to_json())
    assert again == card
    assert again.to_json() == card.to_json()
    assert pickle.loads(pickle.dumps(card)) == card


def test_positive_class(card: Card) -> None:
    assert card.positive.qupath_class == "Tumor"
    assert card.positive.color == (200, 0, 0)


def every_object(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all JSON objects with fixed fields inside a card."""
    found = []
    if isinstance(value, dict):
        if path[-1:] != ("arguments",):
            found.append(path)
        for key, item in value.items():
            found += every_object(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += every_object(item, (*path, index))
    return found


def reach(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def test_every_field_is_needed_typed_and_known(full_card: Card) -> None:
    plain = json.loads(full_card.to_json())
    assert Card.from_json(full_card.to_json()) == full_card
    tried = 0
    for path in every_object(plain):
        for name in reach(plain, path):
            wrongs = ({"odd": []}, [[]]) if name in MAY_BE_ABSENT else (None, {"odd": []}, [[]])
            for wrong in wrongs:
                changed = copy.deepcopy(plain)
                reach(changed, path)[name] = wrong
                with pytest.raises(ModelError, match=name):
                    Card.from_json(json.dumps(changed))
            changed = copy.deepcopy(plain)
            del reach(changed, path)[name]
            if name in MAY_BE_LEFT_OUT:
                assert getattr(Card.from_json(json.dumps(changed)), name) is None
                continue
            with pytest.raises(ModelError, match=f"{name}' is missing"):
                Card.from_json(json.dumps(changed))
            tried += 1
        changed = copy.deepcopy(plain)
        reach(changed, path)["extra"] = 1
        with pytest.raises(ModelError, match="unknown field 'extra'") as caught:
            Card.from_json(json.dumps(changed))
        assert caught.value.mend
    assert tried > 60


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema_version",), 1, "schema_version must be one of 2"),
        (("schema_version",), True, "schema_version must be one of 2"),
        (("schema_version",), 2.0, "schema_version must be one of 2"),
        (("mpp",), "4", "card.mpp must be a number"),
        (("mpp",), float("nan"), "card.mpp must be a finite number"),
        (("tile_px",), 20.0, "card.tile_px must be a whole number"),
        (("tile_px",), True, "card.tile_px must be a whole number"),
        (("classes", 1, "color"), [200, 0], r"classes\[1\].color must be a list of 3"),
        (("classes", 1, "color"), [200, 0, 256], "classes.color"),
        (("classes", 1, "positive"), False, "exactly one positive"),
        (("classes", 0, "positive"), 1, r"classes\[0\].positive must be true or false"),
        (("mpp_range",), [4.5, 5.0], "mpp_range"),
        (("encoder", "interpolation"), "nearest", "encoder.interpolation must be one of"),
        (("encoder", "name"), "hf-hub:owner/evil", "encoder.name"),
        (("encoder", "std"), [0.5, 0, 0.5], "encoder.std"),
        (("encoder", "arguments"), {"a": None}, "encoder.arguments.a must be"),
        (("tile_threshold", "value"), 1.5, "tile_threshold.value"),
        (("weights", "sha256"), "ABC", "weights.sha256"),
        (("weights", "file"), "../../etc/passwd", "weights.file must be one of"),
        (("name",), "../up", "name"),
        (("head", "kind"), "../up", "head.kind"),
        (("calibration",), {"kind": "platt", "numbers": [1.0]}, "slope and an intercept"),
        (("conformal", "thresholds"), [0.1, 0.2, 0.3], "conformal"),
        (("conformal", "error_rate"), 1.5, "conformal"),
        (("novelty", "limit"), 0.0, "novelty"),
        (("novelty", "kept"), 1.5, "novelty"),
        (("rule_out", "value"), 2.0, "rule_out"),
    ],
)
def test_impossible_values_are_named(
    path: tuple[Any, ...], value: object, message: str, full_card: Card
) -> None:
    plain = json.loads(full_card.to_json())
    reach(plain, path[:-1])[path[-1]] = value
    with pytest.raises(ModelError, match=message):
        Card.from_json(json.dumps(plain))


@pytest.mark.parametrize("text", ["", "[]", "null", '{"a": 1', "[" * 100_000])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        Card.from_json(text)


def test_whole_numbers_stand_for_floats(card: Card) -> None:
    plain = json.loads(card.to_json())
    plain["mpp"] = 4
    again = Card.from_json(json.dumps(plain))
    assert again == dataclasses.replace(card, mpp=4.0)
    assert isinstance(again.mpp, float)
