"""What docs/training.md shows can be used as it stands."""

from __future__ import annotations

import re
from pathlib import Path

from slidetriage.models.heads import list_heads
from slidetriage.workflows.research.encoders import EncoderFile

TEXT = (Path(__file__).parents[3] / "docs" / "training.md").read_text()


def test_the_encoder_card_can_be_read(tmp_path: Path) -> None:
    (card,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "card.json").write_text(card)
    assert EncoderFile.read(tmp_path / "card.json").encoder.feature_size == 384


def test_every_head_is_named() -> None:
    for head in list_heads():
        assert f"`{head}`" in TEXT
