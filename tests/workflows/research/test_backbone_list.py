"""`slidetriage models --backbones` shows what the registry has, for people and for programs."""

from __future__ import annotations

import orjson
import pytest
from typer.testing import CliRunner

from slidetriage.errors import UsageError
from slidetriage.models.foreign import BACKBONES
from slidetriage.workflows.cli import app


def test_programs_get_every_entry() -> None:
    done = CliRunner().invoke(app, ["models", "--backbones", "--json"])
    assert done.exit_code == 0, done.output
    records = orjson.loads(done.stdout)
    assert [record["name"] for record in records] == sorted(BACKBONES)
    for record in records:
        backbone = BACKBONES[record["name"]]
        for field, value in record.items():
            assert value == getattr(backbone, field), field
    assert {"mpp", "input_px", "feature_size", "licence", "gated", "commercial"} <= set(records[0])


def test_people_get_a_line_for_each() -> None:
    done = CliRunner().invoke(app, ["models", "--backbones"], env={"COLUMNS": "140"})
    assert done.exit_code == 0, done.output
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("│")}
    assert set(BACKBONES) <= set(lines)
    cells = [cell.strip() for cell in lines["virchow2"].split("│")[1:-1]]
    assert cells == ["virchow2", "0.5", "224", "2560", "CC-BY-NC-ND-4.0", "no", "yes"]
    cells = [cell.strip() for cell in lines["h-optimus-0"].split("│")[1:-1]]
    assert cells == ["h-optimus-0", "0.5", "224", "1536", "Apache-2.0", "yes", "no"]


def test_a_narrow_terminal_cuts_no_name() -> None:
    done = CliRunner().invoke(app, ["models", "--backbones"], env={"COLUMNS": "80"})
    for name in BACKBONES:
        assert f"│ {name} " in done.stdout


def test_commands_are_as_before() -> None:
    bare = CliRunner().invoke(app, ["models"])
    for text in ("list", "show", "--backbones"):
        assert text in bare.output
    listed = CliRunner().invoke(app, ["models", "list", "--json"])
    assert [card["name"] for card in orjson.loads(listed.stdout)] == ["breast-idc-scout"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json"], "--backbones"),
        (["--backbones", "list"], "Before list"),
        (["--json", "show"], "Put --json after show"),
    ],
)
def test_options_in_the_wrong_place_are_refused(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["models", *arguments])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
