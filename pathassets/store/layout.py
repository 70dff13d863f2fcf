"""Layout: every key of the store and every file of a study's home folder that the store keeps.

Belongs here: names and where they are. Does not belong: reading or writing them (`root`).

    <home>/results.duckdb                                       the SQL snapshot
    <home>/.published.json                                      what it was made from
    <home>/store/, or s3://<bucket>/<prefix>/                   the root (its place is a setting)
        tables/<table>/slide_id=<slide id>/<part>.parquet       one file per table, slide and part
        tables/<table>/study/<part>.parquet                     tables of the whole study
        tables/<table>/__schema__/schema.parquet                no rows; fixes the columns' types
        arrays/<slide id>/<digest>/<name>.zarr/                 immutable once its marker is there; <name>_again where it was made again
        arrays/<slide id>/<digest>/<name>.done.json             the marker
        arrays/<slide id>/<digest>/<name>.shards/               what a resume needs; gone when it is done
        masks/<slide id>/labels.npz                             which tissue piece each pixel of the overview is
        figures/<slide id>/<name>, figures/study/<name>         thumbnails, overlays, interactive pages
        locks/<name>.lock   cache/<kind>/<token>.json   cache/index/<table>.parquet

A part is `part` for what all tilings share, `<tiling>` for tiles, `<tiling>__<recipe>` for what belongs to a recipe.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

STORE = "store"
RESULTS = "results.duckdb"
PUBLISHED = ".published.json"
SHARED_PART = "part"
STUDY = "study"
MOSAIC_ENDING = ".mosaic.json"
EMBEDDINGS = "embeddings"
SCHEMA_KEY = "__schema__/schema.parquet"

_SLIDE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")
_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_NAME = re.compile(r"[a-z0-9_]+")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")
_RECIPE = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")
_TABLE_FILE = re.compile(
    rf"tables/(?P<table>{_NAME.pattern})/(?:{STUDY}|slide_id=(?P<slide>{_SLIDE_ID.pattern}))/{_NAME.pattern}\.parquet"
)


def default_store(home: str | Path) -> Path:
    """The store's root in a home folder whose settings name no other."""
    return Path(home) / STORE


def results_path(home: str | Path) -> Path:
    """The SQL snapshot in a home folder."""
    return Path(home) / RESULTS


def published_path(home: str | Path) -> Path:
    """What the SQL snapshot in a home folder was made from."""
    return Path(home) / PUBLISHED


# -- tables --------------------------------------------------------------------------------------------------------


def table_prefix(table: str, slide_id: str | None = None) -> str:
    """All files of a table, or those of one slide."""
    prefix = f"tables/{_checked(table, _NAME, 'table')}"
    return prefix if slide_id is None else f"{prefix}/slide_id={checked_slide_id(slide_id)}"


def table_key(table: str, slide_id: str | None, part: str = SHARED_PART) -> str:
    """One file of a table.

    Args:
        table: Its name.
        slide_id: Whose rows; None for tables of the whole study.
        part: See the module's docstring.
    """
    folder = f"{table_prefix(table)}/{STUDY}" if slide_id is None else table_prefix(table, slide_id)
    return f"{folder}/{_checked(part, _NAME, 'part')}.parquet"


def schema_file_key(table: str) -> str:
    """The file without rows that fixes a table's columns."""
    return f"{table_prefix(table)}/{SCHEMA_KEY}"


def table_slide(key: str) -> tuple[str, str | None] | None:
    """Table and slide of a table's file (slide None = the study's); None for the file without rows, and for foreign files."""
    found = _TABLE_FILE.fullmatch(key)
    if found is None or ".." in key:
        return None
    return found["table"], found["slide"]


def table_part(key: str) -> str:
    """The part of a table's file."""
    return key.rpartition("/")[2].removesuffix(".parquet")


def recipe_part(recipe: str) -> str:
    """The part of a recipe `<tiling>/<recipe>`: `<tiling>__<recipe>`.

    Raises:
        ValueError: A name holds `__`, so that two recipes could share a file.
    """
    tiling, name = _checked(recipe, _RECIPE, "recipe").split("/")
    if "__" in tiling or "__" in name or tiling.endswith("_") or name.startswith("_"):
        raise ValueError(f"the names in recipe {recipe!r} may not hold '__' or put '_' beside the slash")
    return f"{tiling}__{name}"


def live_pattern(table: str, *, study: bool) -> str:
    """What SQL's live views read: files as this store names them, the one without rows among them.

    Other programs leave folders of their own beside ours (`@eaDir`, `lost+found`). DuckDB refuses a list of patterns of which one
    finds nothing, so that one pattern is for both folders, letter by letter: `[s_][l_]...`.
    """
    folders = zip(STUDY if study else "slide_id=", SCHEMA_KEY.partition("/")[0], strict=False)
    letters = "".join(f"[{one}{other}]" for one, other in folders)
    return f"{table_prefix(table)}/{letters}*/[a-z0-9_]*.parquet"


# -- folders of a slide --------------------------------------------------------------------------------------------

# What holds one folder for each slide; tables have one per table.
SLIDE_FOLDERS = ("arrays", "masks", "figures")


# -- arrays --------------------------------------------------------------------------------------------------------


def array_folder(slide_id: str, digest: str) -> str:
    """Folder of the arrays with one digest."""
    return f"arrays/{checked_slide_id(slide_id)}/{_checked(digest, _DIGEST, 'digest')}"


def is_array_folder(slide_id: str, digest: str) -> bool:
    """Whether folders of these names are ours: what other programs leave in the store is passed over."""
    return is_slide_id(slide_id) and _DIGEST.fullmatch(digest) is not None


def group_key(slide_id: str, digest: str, name: str) -> str:
    """A Zarr group."""
    return f"{array_folder(slide_id, digest)}/{_checked(name, _NAME, 'array name')}.zarr"


def group_places(slide_id: str, digest: str, name: str) -> tuple[str, str]:
    """The two places of a group: what is made again lies in the one that no row names, so that nobody's reading is disturbed."""
    return group_key(slide_id, digest, name), group_key(slide_id, digest, f"{name}_again")


def group_name(group: str) -> str:
    """The name of a group."""
    return group.rpartition("/")[2].removesuffix(".zarr")


def marker_key(group: str) -> str:
    """The done marker beside a Zarr group."""
    return group.removesuffix(".zarr") + ".done.json"


def sidecar_prefix(group: str) -> str:
    """What was noted per shard while a group was being written."""
    return group.removesuffix(".zarr") + ".shards"


def slide_lock(slide_id: str) -> str:
    """Name of the lock of whoever makes results of a slide."""
    return f"slide-{checked_slide_id(slide_id)}"


def array_lock(slide_id: str, digest: str, name: str) -> str:
    """Name of the lock of whoever writes a group."""
    return f"{name}-{slide_id}-{digest}" if len(slide_id) < 120 else f"{name}-{digest}-{_token(slide_id)}"


def uri_prefix(root: str, home: Path) -> str:
    """What turns a key into a `uri` in SQL: relative to the folder of `results.duckdb` where the store lies in it."""
    inside = "://" not in root and Path(root).is_relative_to(home)
    return f"{Path(root).relative_to(home).as_posix() if inside else root}/"


# -- locks ---------------------------------------------------------------------------------------------------------


def guards(key: str) -> list[str]:
    """Names of the locks that guard a key: who has one of them may write the key only while it has it."""
    kind, *parts = key.split("/")
    folder = parts[1:2] if kind == "tables" else parts[:1] if kind in SLIDE_FOLDERS else []
    slide_id = folder[0].removeprefix("slide_id=") if folder else STUDY
    if slide_id in (STUDY, SCHEMA_KEY.partition("/")[0]) or not _SLIDE_ID.fullmatch(slide_id):
        return []
    locks = [slide_lock(slide_id)]
    if kind == "arrays" and len(parts) > 2:
        locks.append(array_lock(parts[0], parts[1], parts[2].partition(".")[0]))
    return locks


# -- pictures and small files --------------------------------------------------------------------------------------


def tissue_labels_key(slide_id: str) -> str:
    """Label image of the slide's tissue: -1 = background, n = tissue piece n."""
    return f"masks/{checked_slide_id(slide_id)}/labels.npz"


def figure_key(slide_id: str | None, name: str) -> str:
    """A picture or page of a slide (None = of the study); `name` has its extension."""
    folder = STUDY if slide_id is None else checked_slide_id(slide_id)
    return f"figures/{folder}/{_checked(name, _FILE, 'figure name')}"


def thumbnail_key(slide_id: str) -> str:
    """The slide's thumbnail."""
    return figure_key(slide_id, "thumbnail.jpg")


def mosaic_key(recipe: str) -> str:
    """The mosaic of a recipe's cohort map."""
    return figure_key(None, f"{recipe_part(recipe)}{MOSAIC_ENDING}")


def cache_key(kind: str, token: str) -> str:
    """A remembered value; `token` may be any text."""
    return f"cache/{_checked(kind, _NAME, 'cache kind')}/{_token(token)}.json"


def index_key(table: str) -> str:
    """What is remembered of a table that is looked through all the time."""
    return f"cache/index/{_checked(table, _NAME, 'table')}.parquet"


def is_table_file(key: str) -> bool:
    """Whether a key is that of a table's file with rows."""
    return key.endswith(".parquet") and table_slide(key) is not None


def is_slide_id(name: str) -> bool:
    """Whether a slide could have this id."""
    return ".." not in name and _SLIDE_ID.fullmatch(name) is not None


def checked_slide_id(slide_id: str) -> str:
    """`slide_id`, when it is safe as a folder's name.

    Raises:
        ValueError: It could leave the store or hide in it.
    """
    if ".." in slide_id:
        raise ValueError(f"slide id {slide_id!r} holds '..'")
    return _checked(slide_id, _SLIDE_ID, "slide id")


def _checked(text: str, pattern: re.Pattern[str], what: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"{what} {text!r} must match {pattern.pattern}")
    return text


def _token(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
