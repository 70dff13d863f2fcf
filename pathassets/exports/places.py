"""Places: what leaves a study names files, never the folders that they lie in, because paths tell names.

Belongs here: reducing paths and addresses in values, sentences, JSON and whole tables. Does not belong: which file they are
written to (`tables`, `report/`).

A file's own name stays: slide ids begin with it anyway. An array group is called by its key in the store, which tells nothing
and finds it again. Links to the web stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import polars as pl

from pathassets.steps.session import Session
from pathassets.store.census import readable

# Columns, and keys in JSON, that are paths whatever they look like.
PATH_COLUMNS = ("path", "tissue_mask")
SENTENCES = ("message", "remedy")
_ADDRESS = r"(?!https?://)[A-Za-z][A-Za-z0-9+.-]*://"
_ROOTED = rf"{_ADDRESS}|[A-Za-z]:[\\/]|\\\\|~/|/"
# A place inside a sentence: from its root to the next blank or quote.
_IN_TEXT = re.compile(rf"(?<![\w:/.~*<\\])(?:{_ADDRESS}|[A-Za-z]:\\|\\\\|~?/)[^\s'\"`,;<>()\[\]{{}}]+")
_IS_PLACE = re.compile(rf"(?:{_ROOTED})[^/\\]")
_MAY_HOLD = r"[/\\]"
_JSON = re.compile(r"\s*[\[{]")


def file_name(place: str) -> str:
    """The last part of a path or an address: `a.svs` of `/data/a.svs`, of `s3://lab/a.svs` and of `C:\\lab\\a.svs`."""
    windows = re.match(r"[A-Za-z]:|\\\\", place)
    return (PureWindowsPath if windows else PurePosixPath)(place.rstrip("/\\")).name


class Places:
    """What is to be reduced: all places that the study knows, and what looks like one.

    Args:
        session: The study.
    """

    def __init__(self, session: Session) -> None:
        self._root, study = session.root, session.study
        slides = readable(session.tables, "slides")
        files = [*slides["path"], *(path for paths in slides["other_paths"].drop_nulls() for path in paths)]
        files += [value for row in slides.to_dicts() for value in row.values() if _is_place(value)]
        folders = [str(study.home), str(study.store_uri), *(str(PurePosixPath(file).parent) for file in set(files))]
        # the longest first: a folder's name must not be cut out of the path of a file in it
        self._known = sorted({place for place in (*files, *folders) if _is_place(place)}, key=len, reverse=True)

    def told(self, text: str) -> str:
        """A sentence whose places are names of files."""
        for place in self._known:
            if place in text:
                text = re.sub(re.escape(place) + r"(?![\w-])", lambda found: file_name(found[0]), text)
        return _IN_TEXT.sub(lambda found: _ending(found[0]), text)

    def plain(self, value: Any) -> Any:
        """A value of a table or of JSON, of any depth; JSON text stays JSON text."""
        if isinstance(value, dict):
            return {key: self._named(key, found) for key, found in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(found) for found in value]
        if not isinstance(value, str) or not re.search(_MAY_HOLD, value):
            return value
        return self._group_key(value) or (file_name(value) if _is_place(value) else self._text(value))

    def without(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A table without places, in every column of text."""
        texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
        lists = [name for name, dtype in frame.schema.items() if dtype == pl.List(pl.String)]
        done = [pl.Series(name, [self.plain(v) for v in frame[name].to_list()], frame.schema[name]) for name in lists]
        return frame.with_columns([*done, *(_mapped(frame[name], partial(self._named, name)) for name in texts)])

    def _named(self, name: str, value: Any) -> Any:
        """The value of a column or key: a path, even one without a root, a sentence that may begin with a path, or anything."""
        if isinstance(value, str) and name in PATH_COLUMNS + SENTENCES:
            return file_name(value) if name in PATH_COLUMNS else self.told(value)
        return self.plain(value)

    def _group_key(self, value: str) -> str:
        """The key of something in the store; empty where it lies elsewhere."""
        prefix = f"{self._root.uri}/"
        return value.removeprefix(prefix) if value.startswith(prefix) and "\n" not in value else ""

    def _text(self, value: str) -> str:
        if _JSON.match(value):
            try:
                parsed = json.loads(value)
                plain = self.plain(parsed)
                return value if plain == parsed else json.dumps(plain, sort_keys=True)
            except ValueError:
                pass
        return self.told(value)


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and _IS_PLACE.match(value) is not None


def _ending(place: str) -> str:
    """Its name, with the punctuation that ends the sentence."""
    bare = place.rstrip(".:!?")
    return file_name(bare) + place[len(bare) :]


def _mapped(column: pl.Series, change: Callable[[str], Any]) -> pl.Series:
    """Every distinct value is looked at once: tables have millions of rows and few texts."""
    found: Iterable[str] = column.filter(column.str.contains(_MAY_HOLD)).unique().to_list()
    changed = {value: new for value in found if (new := change(value)) != value}
    return column.replace_strict(changed, default=column, return_dtype=pl.String) if changed else column
