"""The command line and what its commands do. Results go to stdout, all else to stderr."""

from __future__ import annotations

import logging
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import orjson
import typer

from slidetriage import __version__
from slidetriage.errors import ModelError, SlideTriageError, UsageError

from .cell_commands import cells
from .interrupts import heed_interrupts
from .json_output import print_json
from .ledger.commands import audit_app, audit_verify, report, status, verify
from .options import Engine, Json, Mpp, Out, Workers
from .plan_command import plan
from .research.backbone_list import models
from .research.calibrate_command import calibrate
from .research.commands import evaluate, features, train
from .research.compare_command import compare
from .run_commands import EXIT_INCOMPLETE, resume, retry, run, say, watching
from .settings import DEFAULT_BUNDLE, RESEARCH_USE, Settings
from .template import begin_imports

if TYPE_CHECKING:
    # Loading these takes seconds, which `--help` need not wait for.
    pass

EXIT_USAGE = 2
EXIT_OUTPUT = 74
EXIT_LOCKED = 75
EXIT_INTERRUPTED = 130

app = typer.Typer(
    help=f"Triage whole-slide images: score, heatmap and annotations. {RESEARCH_USE}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="List model bundles and show their cards.", no_args_is_help=True)
models_app.callback(invoke_without_command=True)(models)
app.add_typer(models_app, name="models")


def main() -> None:
    """Run the command line; ends the process with a code that says how it went."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # An interrupt while workers start leaves tasks half-way, of which asyncio tells at length.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    heed_interrupts()
    try:
        code = app(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except SlideTriageError as error:
        typer.echo(f"slidetriage: {error.code}: {_tellable(str(error))}", err=True)
        code = exit_code(error)
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:
        typer.echo("slidetriage: interrupted; finished slides are kept.", err=True)
    sys.exit(code)


def _tellable(text: str) -> str:
    """The text of an error, without the names in the command where none may be told."""
    if "--deidentify" not in sys.argv:
        return text
    from .privacy import Redactor

    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    terms = {part for word in words for part in (word, *Path(word).parts, Path(word).stem)}
    return Redactor((), Settings(deidentify=True), terms=terms - {"run"}).redact(text)


def exit_code(error: SlideTriageError) -> int:
    """The exit code that stands for an error which ends the command."""
    if error.code == "E_LOCKED":
        return EXIT_LOCKED
    if error.code == "E_OUTPUT":
        return EXIT_OUTPUT
    return EXIT_USAGE if isinstance(error, UsageError | ModelError) else EXIT_INCOMPLETE


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


app.command()(plan)


@app.command()
def info(slide: Path, mpp: Mpp = None, json: Json = False) -> None:
    """Say what a slide is: size, levels, scale, and what is odd about it."""
    from .decoding import Decoder, Nursery
    from .sources import SlideRequest

    # A file that kills who opens it shall not end this command without a word.
    with closing(Nursery()) as nursery:
        decoder = Decoder(nursery, Settings())
        opened = decoder.open(SlideRequest(slide, slide.stem, mpp=mpp), None)
    if json:
        print_json(asdict(opened))
        return
    from .screens import print_slide

    print_slide(opened)


@models_app.command("list")
def models_list(
    detectors: Annotated[
        bool, typer.Option("--detectors", help="The detectors of nuclei instead (`--cells`).")
    ] = False,
    json: Json = False,
) -> None:
    """List the bundles that come with slidetriage, or the detectors of nuclei."""
    if detectors:
        _list_detectors(json)
        return
    from slidetriage.models import list_bundles, load_bundle

    cards = [load_bundle(name).card for name in list_bundles()]
    if json:
        print_json([orjson.loads(card.to_json()) for card in cards])
        return
    from .screens import print_cards

    print_cards(cards)


def _list_detectors(json: bool) -> None:
    from slidetriage.models.nuclei import list_detectors, load_detector

    cards = [load_detector(name).card for name in list_detectors()]
    if json:
        print_json([asdict(card) for card in cards])
        return
    from .detector_screen import print_detectors

    print_detectors(cards)


@models_app.command("show")
def models_show(
    model: Annotated[str, typer.Argument()] = DEFAULT_BUNDLE, json: Json = False
) -> None:
    """Show the card of a bundle or a detector: what it is for, made from, and how it measured."""
    from slidetriage.models import load_bundle
    from slidetriage.models.nuclei import list_detectors, load_detector

    if model in list_detectors():
        detector = load_detector(model).card
        if json:
            print_json(asdict(detector))
            return
        from .detector_screen import print_detector

        print_detector(detector)
        return
    card = load_bundle(model).card
    if json:
        typer.echo(card.to_json(), nl=False)
        return
    from .screens import print_card

    print_card(card)


@app.command()
def demo(
    out: Out = Path("slidetriage-demo"),
    engine: Engine = "dask",
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Paint a slide of synthetic breast tissue, triage it, and compare with what was planted."""
    begin_imports(engine)
    from .demo import run_demo
    from .driver import Resources

    resources = Resources(engine, workers)  # type: ignore[arg-type]  # checked there
    with watching() as watcher:
        outcome = run_demo(out, resources, watcher)
    if json:
        print_json(outcome.record())
    else:
        say(outcome.report, json=False)
        typer.echo(outcome.sentence())


app.command()(run)
app.command()(cells)
app.command()(resume)
app.command()(retry)
app.command()(status)
app.command()(verify)
app.command()(report)
audit_app.command("verify")(audit_verify)
app.add_typer(audit_app, name="audit")
app.command()(features)
app.command()(train)
app.command()(calibrate)
app.command()(evaluate)
app.command()(compare)
