"""Sightings: what lies in the watched places at one moment, and what earlier looks left to be remembered.

Belongs here: asking all places at once, the memory between two looks. Does not belong: registering (`register`), deciding
what is ready (`inbox`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from pathassets.errors import PathassetsError, StoreError
from pathassets.slides import remote
from pathassets.slides.discover import CLOSED, list_folder
from pathassets.slides.parts import Found, Heads, read_head, slides_among
from pathassets.slides.places import absolute, is_inside, is_uri
from pathassets.steps.errands import StillAwayError, answer, send
from pathassets.steps.register import as_found
from pathassets.steps.session import Session
from pathassets.store import layout

_MEMORY = layout.cache_key("inbox", "memory")


@dataclass
class Memory:
    """What one look leaves for the next. It lies in the store's cache: losing it costs one look more.

    Attributes:
        waiting: Files that are no slides yet: path to [size, time, version, since when they look like this, tries].
        ignored: What is no slide, and why.
        aliases: Further paths of slides: path to [size, time, version, slide id].
        heads: What stands in DICOM and VMS files, see `Heads`.
        gone: Slides whose file was not there.
        blind: Folders that could not be listed, and why.
    """

    waiting: dict[str, list[Any]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, list[Any]] = field(default_factory=dict)
    heads: dict[str, list[Any]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    blind: dict[str, str] = field(default_factory=dict)


@dataclass
class Sighting:
    """What lies in the watched places.

    Attributes:
        slides: What may be a slide, by path as the tables have it.
        ignored: What is none, and why.
        blind: Folders and places of which nothing is known now, and why.
        places: The places that were asked.
        heads: What stands in DICOM and VMS files.
    """

    slides: dict[str, Found] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    blind: dict[str, str] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    heads: dict[str, list[Any]] = field(default_factory=dict)

    def is_hidden(self, path: str) -> bool:
        """Whether nothing is known of what lies at `path`."""
        return any(path == folder or is_inside(path, folder) for folder in self.blind)

    def lacks(self, path: str) -> bool:
        """Whether `path` would have been seen, if there were a slide."""
        if path in self.slides or not any(is_inside(path, place) for place in self.places):
            return False
        return not self.is_hidden(path)

    def carry_over(self, old: Mapping[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        """`new`, with what an earlier look knew of places that could not be seen this time."""
        return {**{path: what for path, what in old.items() if self.is_hidden(path)}, **new} if self.blind else new


def sight(session: Session, memory: Memory, seconds: float) -> Sighting:
    """One look at all places of the study, side by side; a place that gives no answer in time is `blind`."""
    end = time.monotonic() + seconds
    sighting = Sighting(places=session.study.inbox_places)
    asked = [*sighting.places, str(session.study.manifest_path)]
    for place in sighting.places:
        send(f"list {place}", partial(_look_into, place, memory.heads, end))
    send(f"list {asked[-1]}", partial(_named_in_manifest, session))
    for place in asked:
        try:
            found, blind, heads = answer(f"list {place}", end - time.monotonic())
        except StillAwayError as error:
            sighting.blind[place] = str(error)
            continue
        _take_in(sighting, found)
        sighting.blind.update(blind)
        sighting.heads.update(heads)
    return sighting


Seen = tuple[list[Found], dict[str, str], dict[str, list[Any]]]


def _look_into(place: str, known: dict[str, list[Any]], end: float) -> Seen:
    heads = Heads(remote.read_head if is_uri(place) else read_head, known, end)
    listing = remote.list_place(place) if is_uri(place) else list_folder(place)
    return slides_among(listing.entries, heads), listing.blind, heads.asked


def _named_in_manifest(session: Session) -> Seen:
    """Slides that the manifest names outside the watched places; one that cannot be read stops nothing else."""
    try:
        named = [*map(str, session.manifest.paths()), *session.manifest.uris()]
    except PathassetsError as error:
        return [], {str(session.study.manifest_path): str(error)}, {}
    places = session.study.inbox_places
    found = [as_found(path) for path in named if not any(is_inside(path, place) for place in places)]
    return [item for item in found if item.size >= 0], {}, {}


def _take_in(sighting: Sighting, found: list[Found]) -> None:
    for item in found:
        if not item.ignored:
            sighting.slides.setdefault(absolute_of(item), item)
        elif item.ignored != CLOSED:  # those are blind
            sighting.ignored[absolute_of(item)] = item.ignored


def absolute_of(found: Found) -> str:
    """The path of what a listing found, as the tables have it; listings give no others, so that most stay as they are."""
    return found.path if found.path.isascii() else absolute(found.path)


def load_memory(session: Session) -> Memory:
    """What the last look left; nothing when it cannot be read."""
    try:
        data = json.loads(session.root.read_if_there(_MEMORY) or b"{}")
    except (StoreError, ValueError):
        return Memory()
    plain = asdict(Memory())
    if not isinstance(data, dict) or any(not isinstance(data.get(name), type(plain[name])) for name in plain):
        return Memory()
    return Memory(**{name: data[name] for name in plain})


def save_memory(session: Session, memory: Memory) -> None:
    """Leaves `memory` for the next look.

    Raises:
        StoreError: The store cannot be written.
    """
    session.root.put(_MEMORY, json.dumps(asdict(memory)).encode())
