"""The commands and their arguments.

Belongs here: one function per command, thin. Does not belong: what `run` does in order (`cli/running.py`).
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from pathassets.cli.arguments import AsJson, Home, study_serving
from pathassets.cli.arguments import study_at as _study
from pathassets.cli.handing_over import COMMANDS
from pathassets.cli.training import train_abmil
from pathassets.config import Study, check_home, home_from_environment, init_home
from pathassets.environment import check_log_format, log_format
from pathassets.errors import PathassetsError, Reason

log = logging.getLogger(__name__)

app = typer.Typer(
    name="pathassets",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Runs a command; every error is a sentence, the traceback goes to the log."""
    from pathassets.cli.console import complain

    logging.getLogger().addHandler(logging.NullHandler())  # else logging itself writes tracebacks to the terminal
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    try:
        app(standalone_mode=True)
        code = 0
    except PathassetsError as error:
        log.info("stopped", exc_info=error)
        complain(error)
        code = 1 if error.reason is Reason.DISK_FULL else 2
    except BrokenPipeError:
        code = 0
    except Exception as error:
        log.exception("unexpected")
        complain(_in_our_words(error))
        code = 1 if _is_disk_full(error) else 2
    sys.exit(code)


_SQLITE_FULL = re.compile(r"disk is full|\(sqlite3\.OperationalError\) disk I/O error")


@app.callback()
def options(
    form: Annotated[
        Literal["text", "json"] | None,
        typer.Option("--log-format", help="json: one object a line on standard error (or PATHASSETS_LOG_FORMAT)."),
    ] = None,
) -> None:
    """Whole-slide images in, Dagster assets out: tissue, tiles, embeddings, domains, text similarity, SQL."""
    from pathassets.cli.console import log_to

    if form is not None:
        os.environ["PATHASSETS_LOG_FORMAT"] = form  # the processes that are started from here write the same
    check_log_format()
    if log_format() == "json":
        log_to(None)


def _in_our_words(error: Exception) -> PathassetsError:
    from pathassets.store.local_root import read_only_database

    if _is_disk_full(error):
        remedy = (
            "Free some space and run again; what is done stays done. If there is space, the disk itself is failing."
        )
        return PathassetsError("the disk is full", reason=Reason.DISK_FULL, remedy=remedy)
    refused = read_only_database(error, "the study's folder .dagster")
    if refused is not None:
        return refused
    first_line = (str(error).splitlines() or [""])[0]
    remedy = "See .dagster/pathassets.log in the study's folder; please report it."
    return PathassetsError(f"{type(error).__name__}: {first_line}", reason=Reason.INTERNAL, remedy=remedy)


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error: Dagster's database says it in words of its own, also where its log cannot grow."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or _SQLITE_FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@app.command()
def init(directory: Annotated[Path, typer.Argument(help="The study's folder.")] = Path()) -> None:
    """Write a commented pathassets.toml and an inbox."""
    from pathassets.cli.console import say

    check_home(directory.expanduser())
    made = init_home(directory.expanduser())
    for path in made:
        say(f"made {path}")
    if not made:
        say(f"{directory} is a study already; nothing was changed")


@app.command()
def demo(home: Annotated[Path, typer.Option("--home", help="Where the demo's study goes.")] = Path("demo")) -> None:
    """Synthetic slides with known truth through everything."""
    from pathassets.cli.demo import run_demo

    check_home(home.expanduser())
    raise typer.Exit(run_demo(home.expanduser()))


@app.command()
def run(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Slides and folders of slides, s3:// too; none = inbox, manifest and known slides."),
    ] = None,
    home: Home = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="Encoder to use; written into pathassets.toml. May be repeated.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Local weight file of the encoder.")] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Use untrained weights; every output says so.")
    ] = False,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Local tokenizer file, or its folder, of the encoder's text tower.")
    ] = None,
    slide_encoder: Annotated[
        str | None, typer.Option(help="Slide encoder over its tiles; written into pathassets.toml too.")
    ] = None,
    slide_weights: Annotated[Path | None, typer.Option(help="Local weight file of the slide encoder.")] = None,
    tile_px: Annotated[int | None, typer.Option(help="Tile edge in pixels.", min=8, max=8192)] = None,
    mpp: Annotated[float | None, typer.Option(help="Resolution of tiles, µm per pixel.", min=0.05, max=100)] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cuda, cuda:1, mps or cpu; several: cuda:0,cuda:1 or cuda:all.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Tiles per forward pass.", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that read tiles.", min=0)] = None,
    force: Annotated[bool, typer.Option("--force", help="Make results that are current again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell tiles, space and time; change nothing.")] = False,
    select: Annotated[str | None, typer.Option(help='Assets to make, as in Dagster; "*" adds the cohort\'s.')] = None,
    as_json: AsJson = False,
) -> None:
    """Register slides, make their assets through Dagster, publish results.duckdb."""
    from pathassets.cli.console import say
    from pathassets.cli.running import Request, run_study

    request = Request(
        home=(home or home_from_environment()).expanduser(),
        paths=tuple(paths or ()),
        encoders=tuple(encoder or ()),
        weights=weights,
        random_weights=random_weights,
        tokenizer=tokenizer,
        slide_encoder=slide_encoder,
        slide_weights=slide_weights,
        tile_px=tile_px,
        mpp=mpp,
        device=device,
        batch_size=batch_size,
        workers=workers,
        force=force,
        select=select,
        as_json=as_json,
    )
    if dry_run:
        from pathassets.cli.estimating import dry_run_study

        raise typer.Exit(dry_run_study(request))
    try:
        code = run_study(request)
    except KeyboardInterrupt:
        say("interrupted: what was finished stays, run again to go on")
        code = 130
    raise typer.Exit(code)


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """What is done, missing and failed, slide by slide."""
    from pathassets.cli.reporting import print_status

    raise typer.Exit(print_status(_study(home), as_json=as_json))


@app.command()
def outcomes(
    home: Home = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what went well.")] = False,
    as_json: AsJson = False,
) -> None:
    """What needs a look: reason and remedy for each slide and step."""
    from pathassets.cli.reporting import print_outcomes

    raise typer.Exit(print_outcomes(_study(home), everything=everything, as_json=as_json))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT.")],
    home: Home = None,
    output: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="table, csv or json.")] = "table",
) -> None:
    """Ask results.duckdb, read-only."""
    from pathassets.cli.reporting import print_query

    print_query(_study(home), query, output)


@app.command()
def publish(home: Home = None) -> None:
    """Refresh results.duckdb."""
    from pathassets.cli.running import publish_study

    raise typer.Exit(publish_study(_study(home)))


@app.command()
def verify(
    home: Home = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte of the arrays and every row of SQL.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take back what cannot be used, so that the next run makes it again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the store against itself, results.duckdb and Dagster: every published result is there, readable and whole."""
    from pathassets.cli.keeping import verify_study

    raise typer.Exit(verify_study(_study(home), deep=deep, repairing=repair, as_json=as_json))


@app.command()
def explain(
    name: Annotated[
        str, typer.Argument(help="A slide (id or its beginning, file, path), a study's asset, or a digest.")
    ],
    asset: Annotated[str | None, typer.Argument(help="One of the slide's assets; none = all of them.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What a result came from: file, options, weights, versions, run, inputs; and whether that is still so."""
    from pathassets.cli.explaining import explain as tell

    raise typer.Exit(tell(_study(home), name, asset, as_json=as_json))


@app.command()
def adopt(
    home: Home = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be reported.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell Dagster of results that its event log has lost, or never had: after a copy, or a lost .dagster."""
    from pathassets.cli.keeping import adopt_study

    raise typer.Exit(adopt_study(_study(home), dry_run=dry_run, as_json=as_json))


@app.command()
def gc(
    home: Home = None,
    older_than: Annotated[str, typer.Option(help="Untouched for so long: 7d, 12h, 2w.")] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would go; remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what nobody refers to any more: superseded arrays, half-written files, what is left of forgotten slides."""
    from pathassets.cli.keeping import collect_garbage

    raise typer.Exit(collect_garbage(_study(home), older_than=older_than, dry_run=dry_run, as_json=as_json))


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="The slide: id or its beginning, file, path.")],
    home: Home = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, what would go is told.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a slide from the study: rows, arrays, Dagster's partition. Its file stays."""
    from pathassets.cli.keeping import forget_slide

    raise typer.Exit(forget_slide(_study(home), name, yes=yes, as_json=as_json))


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
app.command("train-abmil")(train_abmil)


@app.command()
def encoders(
    name: Annotated[str | None, typer.Argument(help="One encoder; none = all cards.")] = None,
    golden: Annotated[
        bool, typer.Option("--golden", help="Record its vector of a drawn tile in the home folder, or compare it.")
    ] = False,
    weights: Annotated[Path | None, typer.Option(help="With --golden: local weight file.")] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="With --golden: untrained.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Encoders that are known: dimensions, tile size, licence, whether weights are here."""
    from pathassets.cli.reporting import print_encoders, print_golden

    if golden and name:
        folder = (home or home_from_environment()).expanduser()
        raise typer.Exit(print_golden(folder, name, weights, random_weights=random_weights, as_json=as_json))
    print_encoders(name, as_json=as_json)


@app.command()
def doctor(home: Home = None, as_json: AsJson = False) -> None:
    """Python, libraries, disk, device, weights, store: each line with what to do."""
    from pathassets.cli.doctor import print_diagnosis

    raise typer.Exit(print_diagnosis(_study(home, must_exist=False), as_json=as_json))


@app.command()
def dev(
    home: Home = None,
    port: Annotated[int, typer.Option(help="Of Dagster's UI, on 127.0.0.1.", min=1, max=65535)] = 3000,
    dashboard_port: Annotated[
        int, typer.Option(help="Of the dashboard, on 127.0.0.1; 0 = none.", min=0, max=65535)
    ] = 8050,
) -> None:
    """Dagster's UI and daemon, and the dashboard, for a study; picks up files dropped into its inbox."""
    from pathassets.cli.serving import serve

    folder = (home or home_from_environment()).expanduser()
    check_home(folder)
    init_home(folder)
    raise typer.Exit(serve(Study(folder), port, dashboard_port))


@app.command()
def dashboard(
    home: Home = None,
    port: Annotated[int, typer.Option(help="On 127.0.0.1.", min=1, max=65535)] = 8050,
    dagster_url: Annotated[
        str | None, typer.Option(help="Where Dagster's UI is served, to link to it (or dagster_url in [study]).")
    ] = None,
) -> None:
    """Slides, overlays, search, atlas and SQL in the browser; reads only what has been published."""
    from pathassets.cli.serving import serve_dashboard

    raise typer.Exit(serve_dashboard(study_serving(home, dagster_url), port))
