"""Kept: a folder of files in a study's home that follows the study, slide by slide.

Belongs here: which slides' files are made anew, which files go. Does not belong: what is written (`exports.run`, `report/`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathassets import __version__
from pathassets.errors import PathassetsError, Reason
from pathassets.exports.files import Target
from pathassets.exports.run import (
    TABLE_FORMATS,
    Format,
    LeftOut,
    export_cohort,
    export_slides,
    export_tables,
    format_of,
)
from pathassets.recipes import digest
from pathassets.steps.forget import EXPORTS
from pathassets.steps.naming import slide_ids
from pathassets.steps.session import Session
from pathassets.store.census import readable
from pathassets.store.layout import STUDY
from pathassets.store.local_root import remove_path, translated

log = logging.getLogger(__name__)

NOTE = "made_from.json"


@dataclass
class Kept:
    """What there is after a look at all slides.

    Attributes:
        path: The folder.
        slides: Slides that have files there.
        files: How many files, or folders that are a result as a whole, there are.
        written: Those that are new or say something else than before.
        left_out: What could not be made, by slide or table.
    """

    path: Path
    slides: int = 0
    files: int = 0
    written: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


class KeptFolder:
    """A folder with a note of what each slide's files were made from, and which they are.

    Args:
        session: The study.
        path: The folder.

    Attributes:
        path: The folder.
        written: Files that are new or say something else than before.
    """

    def __init__(self, session: Session, path: Path) -> None:
        self._target = Target(path, force=True)
        self._target.sweep()
        self.path = self._target.path
        self.written: list[str] = []
        self._before = _noted(self.path / NOTE)
        self._now: dict[str, Any] = {}
        self._tokens = _tokens(session)

    def due(self, slides: Iterable[str]) -> Iterator[tuple[str, Target]]:
        """Slides of which something has changed or a file is gone, each with where its files go; the others stay."""
        for slide_id in slides:
            noted = self._before.get(slide_id)
            if noted and noted["made_from"] == self._tokens.get(slide_id) and self._has(noted["files"]):
                self._now[slide_id] = noted
            else:
                yield slide_id, Target(self.path, force=True)

    def settle(self, owner: str, target: Target, *, whole: bool) -> None:
        """Notes what was made.

        Args:
            owner: A slide, or `STUDY` for what belongs to all.
            target: Where its files went.
            whole: Whether nothing was left out; if something was, it is tried again the next time, and its last files stay.
        """
        files = {*target.written, *target.unchanged}
        if not whole and owner in self._before:
            files |= set(self._before[owner]["files"])
        self.written += target.written
        self._now[owner] = {"made_from": self._tokens.get(owner) if whole else None, "files": sorted(files)}

    def close(self) -> int:
        """Removes what was noted before and is no more, and nothing else; how many files there are."""
        files = _files(self._now)
        for file in _files(self._before) - files:
            with translated(f"remove {self.path / file}"):
                remove_path(self.path / file)
        self._target.put_json(NOTE, self._now)
        return len(files)

    @property
    def slides(self) -> int:
        """How many slides have files there."""
        return sum(owner != STUDY and bool(noted["files"]) for owner, noted in self._now.items())

    def _has(self, files: Sequence[str]) -> bool:
        return all((self.path / file).exists() for file in files)


def keep_export(session: Session, name: str) -> Kept:
    """Brings `<home>/exports/<format>` up to date: slides of which nothing has changed are not looked at again.

    What cannot be exported is named, holds up nothing else, and is tried again the next time; its last file stays.

    Args:
        session: The study.
        name: A format.

    Raises:
        StoreError: The disk is full or cannot be written.
    """
    folder = KeptFolder(session, session.study.home / EXPORTS / name)
    found, shared = Kept(folder.path), Target(folder.path, force=True)
    if name in TABLE_FORMATS:
        left = export_tables(session, (), None, None, shared, csv=name == "csv")
    else:
        left, form = [], format_of(name)
        for slide_id, target in folder.due(slide_ids(session)):
            missing = _exported(session, form, slide_id, target)
            folder.settle(slide_id, target, whole=not missing)
            left += missing
        export_cohort(session, form, session.study.recipes, shared)
    folder.settle(STUDY, shared, whole=name not in TABLE_FORMATS or not left)
    found.files, found.slides, found.written = folder.close(), folder.slides, folder.written
    found.left_out = {item.slide_id: f"{item.message} [{item.reason}]" for item in left}
    return found


def _exported(session: Session, form: Format, slide_id: str, target: Target) -> list[LeftOut]:
    """What of a slide could not be exported; a mistake of ours costs that slide alone, too."""
    try:
        return export_slides(session, form, [slide_id], session.study.recipes, target)
    except PathassetsError:
        raise
    except Exception as error:
        log.exception("no export of %s", slide_id)
        return [LeftOut(slide_id, str(Reason.INTERNAL), type(error).__name__, "")]


def _tokens(session: Session) -> dict[str, str]:
    """For each slide a digest of all that can be told of it: its outcomes hold the digests of everything else."""
    outcomes = readable(session.tables, "outcomes").sort("tiling", "recipe", "step", nulls_last=True)
    columns = ("tiling", "recipe", "step", "status", "reason", "result_digest", "created_at")
    rows = {str(slide): frame.select(columns).rows() for (slide,), frame in outcomes.group_by("slide_id")}
    common = (__version__, [recipe.key for recipe in session.study.recipes])
    return {slide_id: digest(*common, [[str(value) for value in row] for row in of]) for slide_id, of in rows.items()}


def _noted(path: Path) -> dict[str, Any]:
    """What the last time has noted; a note that cannot be read, or is another's, counts for none."""
    try:
        found = json.loads(path.read_bytes())
        return {str(owner): {"made_from": noted["made_from"], "files": [_inside(file) for file in noted["files"]]}
                for owner, noted in found.items()}  # fmt: skip
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


def _files(noted: Mapping[str, Any]) -> set[str]:
    return {file for of in noted.values() for file in of["files"]}


def _inside(file: str) -> str:
    """A noted name, unless it leads out of the folder: what is noted may be removed."""
    parts = Path(file).parts
    if not parts or Path(file).is_absolute() or ".." in parts:
        raise ValueError(file)
    return file
