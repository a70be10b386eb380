"""The commands `status`, `verify`, `report` and `audit verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slidetriage.workflows.json_output import print_json
from slidetriage.workflows.options import Json

EXIT_FOUND = 3
"""Something is wrong with what was checked."""

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a run.")]

audit_app = typer.Typer(help="Check the log of all that runs did.", no_args_is_help=True)


def status(directory: Directory, json: Json = False) -> None:
    """Say what became of every slide that was ever asked for; works while a run lasts, too."""
    from .figures import read_figures
    from .meanings import explain
    from .places import check_audit
    from .states import Running

    figures = read_figures(check_audit(directory))
    counts, codes = figures.counts, figures.codes
    begun = sum(isinstance(each.known, Running) for each in figures.slides.values())
    last = figures.runs[-1] if figures.runs else None
    if json:
        print_json(
            {
                "out": str(directory),
                "summary": counts,
                "begun": begun,
                "codes": codes,
                "last_run": None if last is None else {"run": last.run, "how": last.how},
            }
        )
        return
    typer.echo(say_counts(counts))
    if begun:
        typer.echo(f"{begun} of the pending were begun.")
    for code, slides in codes.items():
        meaning = explain(code)
        typer.echo(f"{code}: {slides}. {meaning.what} {meaning.mend}")
    if last is not None:
        typer.echo(f"Last run: {last.how}.")


def verify(directory: Directory, json: Json = False) -> None:
    """Check every byte of the results, the worklist and the log; exit 3 if something is wrong."""
    from .verifying import verify_output

    found = 0
    records: list[dict[str, str]] = []
    for finding in verify_output(directory):
        found += 1
        place = "/".join(part for part in (finding.directory, finding.file) if part)
        if json:
            records.append(
                {
                    "directory": finding.directory,
                    "file": finding.file,
                    "what": finding.what,
                    "mend": finding.mend,
                }
            )
        else:
            typer.echo(f"{place}: {finding.what}. {finding.mend}")
    if json:
        print_json({"out": str(directory), "sound": not found, "findings": records})
    else:
        typer.echo(f"{found} findings." if found else "Everything is as it was written.")
    if found:
        raise typer.Exit(EXIT_FOUND)


@audit_app.command("verify")
def audit_verify(
    directory: Directory,
    head: Annotated[
        str | None,
        typer.Option("--head", help="A hash of the log noted earlier, such as in a report."),
    ] = None,
    json: Json = False,
) -> None:
    """Follow the log's chain of hashes; exit 3 if a line was changed, moved or lost."""
    from .audit import verify_audit
    from .places import check_audit

    check = verify_audit(check_audit(directory), head=head)
    if json:
        print_json({"events": check.events, "head": check.head, "problem": check.problem})
    else:
        typer.echo(f"{check.events} events, head {check.head}")
        typer.echo(check.problem or "The chain is sound.")
        if head is None and check.problem is None:
            typer.echo("Give --head to see whether lines are missing at the end.", err=True)
    if check.problem is not None:
        raise typer.Exit(EXIT_FOUND)


def report(directory: Directory) -> None:
    """Write the report of all runs into a folder: run/report.html and run/report.jsonl."""
    from .reporting import write_report

    typer.echo(f"Report: {write_report(directory)}")


def say_counts(counts: dict[str, int]) -> str:
    """The sum that adds up, as a line."""
    names = {"gaps": "with gaps"}
    parts = [f"{number} {names.get(name, name)}" for name, number in counts.items()]
    return f"{parts[0]} = {' + '.join(parts[1:])}"
