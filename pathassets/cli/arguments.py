"""Arguments that many commands share, and the study that they mean.

Belongs here: annotated types for Typer. Does not belong: commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pathassets.config import CONFIG_FILE, Study, check_home, home_from_environment
from pathassets.errors import Reason, StudyError

Home = Annotated[
    Path | None,
    typer.Option(
        "--home", help="The study's folder (or PATHASSETS_HOME, or the current directory).", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def study_at(home: Path | None, *, must_exist: bool = True) -> Study:
    """The study of a command; its log takes what its user should not have to read.

    Raises:
        StudyError: There is none, and there must be one.
    """
    from pathassets.cli.console import log_to
    from pathassets.store import open_root

    check_home((home or home_from_environment()).expanduser())
    study = Study(home or home_from_environment())
    is_empty = (study.home / CONFIG_FILE).is_file()  # as `init` leaves it: a study to which slides may come
    if must_exist and not is_empty and not open_root(study.store_uri).is_there():
        raise StudyError(
            f"there is no study in {study.home}",
            reason=Reason.CONFIG_INVALID,
            remedy="Name its folder with --home, or make one with `pathassets run SLIDES --home FOLDER`.",
        )
    if study.dagster_home.is_dir():
        log_to(study.log_path)
    return study


def study_serving(home: Path | None, dagster_url: str | None) -> Study:
    """The study of the dashboard, which may be told where Dagster's UI is; it may have no results yet where it is served
    beside Dagster, which makes them.

    Raises:
        StudyError: There is none; the address is none.
    """
    study = study_at(home, must_exist=False)
    if not study.dagster_home.is_dir():
        study = study_at(home)
    return study if dagster_url is None else Study(study.home, dagster_url=dagster_url)
