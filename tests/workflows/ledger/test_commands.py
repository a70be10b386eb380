"""The commands as a user and as a program meet them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from slidetriage.errors import UsageError
from slidetriage.workflows.ledger.audit import AuditLog, verify_audit
from slidetriage.workflows.ledger.commands import audit_app, report, status, verify
from slidetriage.workflows.ledger.events import RunStart, run_started, slide_running

app = typer.Typer()
for command in (status, verify, report):
    app.command()(command)
app.add_typer(audit_app, name="audit")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_status_says_what_became_of_the_slides(out: Path) -> None:
    done = call("status", out)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "3 planned = 2 done + 0 with gaps + 1 rejected + 0 failed + 0 pending"
    assert lines[1].startswith("E_NOT_SLIDE: 1. ")
    assert lines[-1] == "Last run: complete."


def test_status_while_a_run_lasts(out: Path) -> None:
    with AuditLog.open(out / "run" / "audit.jsonl") as log:
        run_started(log, RunStart("second", "1", 5, 5, "m"))
        slide_running(log, 4)
        done = call("status", out, "--json")
    found = json.loads(done.stdout)
    assert found["summary"]["pending"] == 2
    assert found["begun"] == 1
    assert found["codes"] == {"E_NOT_SLIDE": 1}
    assert found["last_run"] == {"run": "second", "how": "not ended"}


def test_verify_ends_with_3_where_something_is_wrong(out: Path) -> None:
    done = call("verify", out)
    assert (done.exit_code, done.stdout) == (0, "Everything is as it was written.\n")
    assert json.loads(call("verify", out, "--json").stdout)["sound"] is True
    (picture,) = out.glob("tumour-*/overlay.png")
    picture.unlink()
    done = call("verify", out)
    assert done.exit_code == 3
    assert f"{picture.parent.name}/overlay.png: the file is missing." in done.stdout
    done = call("verify", out, "--json")
    assert done.exit_code == 3
    (finding,) = json.loads(done.stdout)["findings"]
    assert set(finding) == {"directory", "file", "what", "mend"}


def test_audit_verify_follows_the_chain(out: Path) -> None:
    path = out / "run" / "audit.jsonl"
    head = verify_audit(path).head
    done = call("audit", "verify", out)
    assert done.exit_code == 0
    assert head in done.stdout
    assert json.loads(call("audit", "verify", out, "--head", head, "--json").stdout) == {
        "events": 8,
        "head": head,
        "problem": None,
    }
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert call("audit", "verify", out).exit_code == 0
    assert call("audit", "verify", out, "--head", head).exit_code == 3
    path.write_bytes(b"".join(lines[1:]))
    done = call("audit", "verify", out)
    assert done.exit_code == 3
    assert "Line 1 " in done.stdout


def test_report_says_where_it_is(out: Path) -> None:
    done = call("report", out)
    assert done.stdout == f"Report: {out / 'run' / 'report.html'}\n"
    assert (out / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    "words", [("status",), ("verify",), ("report",), ("audit", "verify")], ids=" ".join
)
def test_a_folder_of_no_run_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        done = call(*words, folder)
        assert isinstance(done.exception, UsageError)
        assert "--out" in done.exception.mend
