"""Naming: which slide, asset or digest a user means by a few letters.

Belongs here: matching what was typed with what there is, and saying what is near where nothing matches. Does not belong:
what there is to tell about it (`provenance`).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePath

import polars as pl

from pathassets.errors import ConfigError, Reason
from pathassets.steps.session import Session
from pathassets.store import layout
from pathassets.store.census import readable

SHOWN = 5
LONGEST = 80
DIGEST = re.compile(r"(random-)?[0-9a-f]{4,64}")


def quoted(text: str) -> str:
    """`text` as it can stand in one line of an error: no control characters, not endless."""
    return ascii(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")


def find_slides(session: Session, text: str) -> list[str]:
    """Slides that `text` may mean: one where it is an id or a path, else all with this file name or this beginning."""
    slides, ids = _known(session), slide_ids(session)
    if text in ids:
        return [text]
    for names in (_by_path(slides, {text, _absolute(text)}), _by_file_name(slides, text)):
        if names:
            return names
    return [slide_id for slide_id in ids if text and slide_id.startswith(text)]


def slide_ids(session: Session) -> list[str]:
    """Ids of all slides of which there is a row or an outcome, also one that cannot be read."""
    keys = [*session.tables.keys("slides"), *session.tables.keys("outcomes")]
    places = (layout.table_slide(key) for key in keys)
    return sorted({place[1] for place in places if place is not None and place[1] is not None})


def one_slide(session: Session, text: str) -> str:
    """The slide that `text` means.

    Raises:
        ConfigError: None, or more than one.
    """
    found = find_slides(session, text)
    if len(found) == 1:
        return found[0]
    if found:
        raise ambiguous(text, found)
    raise unknown("slide", text, slide_names(session), "`pathassets status` lists the slides.")


def slide_names(session: Session) -> list[str]:
    """Ids and file names of all slides."""
    return [*slide_ids(session), *(PurePath(path).name for path in _known(session)["path"])]


def find_assets(keys: Collection[str], text: str) -> list[str]:
    """Asset keys that `text` may mean: itself, or those that end in it, part by part."""
    if text in keys:
        return [text]
    return [key for key in keys if text and key.endswith(f"/{text}")]


def one_asset(keys: Collection[str], text: str) -> str:
    """The asset that `text` means.

    Raises:
        ConfigError: None, or more than one.
    """
    found = find_assets(keys, text)
    if len(found) == 1:
        return found[0]
    if found:
        raise ambiguous(text, found)
    names = [*keys, *(key.rpartition("/")[2] for key in keys)]
    raise unknown("asset", text, names, f"There are: {', '.join(keys)}.")


def ambiguous(text: str, found: Sequence[str]) -> ConfigError:
    """The error for a name that fits several things."""
    shown = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    return ConfigError(f"{quoted(text)} may be any of {shown}", remedy="Name one of them in full.")


def unknown(what: str, text: str, names: Iterable[str], remedy: str) -> ConfigError:
    """The error for a name that fits nothing, with the nearest that there are."""
    near = difflib.get_close_matches(text[:LONGEST], list(dict.fromkeys(names)), n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    return ConfigError(f"no {what} is called {quoted(text)}", reason=Reason.CONFIG_INVALID, remedy=f"{hint}{remedy}")


def _known(session: Session) -> pl.DataFrame:
    """One slide whose row is damaged must not keep a user from asking about it, or another."""
    return readable(session.tables, "slides").select("slide_id", "path", "other_paths")


def _absolute(text: str) -> str:
    return os.path.abspath(os.path.expanduser(text)) if "\0" not in text else text


def _by_path(slides: pl.DataFrame, paths: set[str]) -> list[str]:
    return [slide_id for slide_id, path, others in slides.iter_rows() if paths & {path, *(others or ())}]


def _by_file_name(slides: pl.DataFrame, text: str) -> list[str]:
    rows = list(slides.select("slide_id", "path").iter_rows())
    by_name = [slide_id for slide_id, path in rows if PurePath(path).name == text]
    return by_name or [slide_id for slide_id, path in rows if PurePath(path).stem == text]
