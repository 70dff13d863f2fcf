"""Garbage: what nobody refers to any more, found and, when it is old enough, removed.

Belongs here: superseded array groups, what is left of slides that are no longer registered, half-written files, stale locks,
old cache entries. Does not belong: damage (`verify`).

Old means that nothing in it has been touched since. What a row names is never garbage, whatever its age; what belongs to a
slide that somebody is working on is left for the next time, because that slide's lock is held.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum

from pathassets.errors import Reason, StoreError
from pathassets.store import layout
from pathassets.store.census import Census, take_census
from pathassets.store.groups import delete_group, digest_folders
from pathassets.store.root import Entry, Root

HOUR_S = 3600.0
_IN_USE = ("cache/inbox/", "cache/index/")  # one file each, and read at every look


class Kind(StrEnum):
    """Kinds of garbage, in the words of the user."""

    GROUP = "array group that no row names"
    SLIDE = "left of a slide that is not registered"
    TEMPORARY = "half-written file"
    LOCK = "lock that nobody holds"
    CACHE = "cache entry"


@dataclass(frozen=True)
class Waste:
    """Something that nobody refers to.

    Attributes:
        kind: What it is.
        key: What is to be removed: a file, a folder, or an array group with all that lies beside it.
        size: Bytes.
        mtime: When anything in it was last changed, seconds since 1970.
        slide_id: The slide that it belongs to.
    """

    kind: Kind
    key: str
    size: int
    mtime: float
    slide_id: str | None = None


def find_waste(
    root: Root, census: Census, older_than: float, published: Collection[str], keep_cache: Collection[str] = ()
) -> list[Waste]:
    """What nobody refers to and nobody has touched for `older_than` seconds.

    Args:
        root: The store.
        census: What the tables hold.
        older_than: Age in seconds; of half-written files at least an hour, because a running process may be at one.
        published: Slides that the snapshot has: if they are not registered, their row was lost, and `verify --repair` puts it back.
        keep_cache: Keys of cache entries that are in use.
    """
    limit = time.time() - older_than
    found = [*_groups(root, census), *_unregistered(root, census, published), *_locks(root)]
    found += [
        Waste(Kind.CACHE, entry.key, entry.size, entry.mtime)
        for entry in root.entries("cache")
        if entry.key not in keep_cache and not entry.key.startswith(_IN_USE)
    ]
    return [waste for waste in found if waste.mtime < limit] + _temporaries(root, max(older_than, HOUR_S))


def remove(root: Root, waste: Waste) -> bool:
    """Removes a piece of garbage; False when somebody is working on its slide, or refers to it again by now."""
    try:
        with ExitStack() as stack:
            if waste.kind is Kind.LOCK:
                stack.enter_context(root.lock(waste.key.removeprefix("locks/").removesuffix(".lock")))
                return True  # who gives a lock back removes its file
            if waste.slide_id is not None:
                stack.enter_context(root.lock(layout.slide_lock(waste.slide_id)))
                return _remove_of_slide(root, waste, stack)
            return root.delete(waste.key)
    except StoreError as error:
        if error.reason is not Reason.LOCKED:
            raise
        return False


def _remove_of_slide(root: Root, waste: Waste, stack: ExitStack) -> bool:
    """The last look under the slide's lock: since the garbage was found, a run may have come back to it."""
    assert waste.slide_id is not None
    census = take_census(root, waste.slide_id)
    if waste.kind is Kind.SLIDE:
        return not census.slides() and root.delete(waste.key)
    if waste.key in census.groups() or census.doubtful():
        return False
    _, slide_id, digest, file = waste.key.split("/")
    stack.enter_context(root.lock(layout.array_lock(slide_id, digest, file.removesuffix(".zarr"))))
    delete_group(root, waste.key)
    folder = layout.array_folder(slide_id, digest)
    if not root.entries(folder):
        root.delete(folder)
    return True


def _groups(root: Root, census: Census) -> Iterator[Waste]:
    """Groups of registered slides that no row names, finished or not."""
    named, doubtful = census.groups(), census.doubtful()
    for slide_id, _, folder in digest_folders(root, sorted(census.slides() - doubtful)):
        for group in _groups_in(root, folder):
            if group not in named:
                yield _waste(Kind.GROUP, group, _entries_of(root, group), slide_id)


def _groups_in(root: Root, folder: str) -> list[str]:
    """Keys of the groups that lie, or were begun, in a folder; what does not look like one is not ours."""
    names = {name.rpartition(".")[0] for name in root.folders(folder) if name.endswith((".zarr", ".shards"))}
    _, slide_id, digest = folder.split("/")
    found = []
    for name in sorted(names):
        try:
            found.append(layout.group_key(slide_id, digest, name))
        except ValueError:
            continue
    return found


def _entries_of(root: Root, group: str) -> list[Entry]:
    folder, name = group.removesuffix(".zarr").rsplit("/", 1)
    own = tuple(f"{folder}/{name}{ending}" for ending in (".zarr/", ".shards/", ".done.json"))
    return [entry for entry in root.entries(folder) if entry.key.startswith(own)]


def _unregistered(root: Root, census: Census, published: Collection[str]) -> Iterator[Waste]:
    """What is left of slides that have no row in `slides`; nothing, where no slide has one: the table itself is lost then."""
    known = census.slides()
    if not known:
        return
    known |= set(published)
    for prefix in sorted(_slide_prefixes(root, census)):
        slide_id = prefix.rpartition("/")[2].removeprefix("slide_id=")
        if slide_id not in known:
            yield _waste(Kind.SLIDE, prefix, root.entries(prefix), slide_id)


def _slide_prefixes(root: Root, census: Census) -> Iterator[str]:
    yield from {key.rpartition("/")[0] for key in (*census.files, *census.unreadable) if "/slide_id=" in key}
    for top in layout.SLIDE_FOLDERS:
        for name in root.folders(top):
            if name != layout.STUDY and layout.is_slide_id(name):
                yield f"{top}/{name}"


def _locks(root: Root) -> Iterator[Waste]:
    for entry in root.entries("locks"):
        yield Waste(Kind.LOCK, entry.key, entry.size, entry.mtime)


def _temporaries(root: Root, older_than: float) -> list[Waste]:
    found = []
    for path in root.temp_files(older_than):
        stat = path.stat()
        found.append(Waste(Kind.TEMPORARY, root.key_of(path), stat.st_size, stat.st_mtime))
    return found


def _waste(kind: Kind, key: str, entries: list[Entry], slide_id: str) -> Waste:
    """Without any file (folders alone) it is as old as can be."""
    return Waste(kind, key, sum(e.size for e in entries), max((e.mtime for e in entries), default=0.0), slide_id)
