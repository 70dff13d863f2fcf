"""The manifest `slides.csv`: what users know about their slides and the files do not say.

Belongs here: reading and checking it, finding a slide's row. Does not belong: writing it, using what it says.

One row per slide. `path` is absolute, a URI, relative to the manifest's folder, or just the file's name, wherever that
file lies. Optional: `mpp` (µm per pixel of level 0), `patient`, `cohort`, `labels`, `notes`, `tissue_mask` (an image, or GeoJSON). Any
further column reaches SQL, as whole numbers, numbers or text, whichever all its values are.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from pathassets.errors import ConfigError, Reason
from pathassets.slides.info import MAX_MPP, MIN_MPP, is_plausible
from pathassets.slides.places import is_uri, name_of

Value = str | int | float | None

TEXT_COLUMNS = frozenset({"path", "patient", "cohort", "labels", "notes", "tissue_mask"})
# Columns of the table `slides` that say what the file is; the manifest cannot say otherwise. `mpp` it can.
RESERVED = frozenset({
    "slide_id", "reader", "vendor", "width_px", "height_px", "n_levels", "level_dimensions", "objective_power",
    "mpp_origin", "mpp_x", "mpp_y", "associated_images", "size_bytes", "mtime_ns", "content_sha256", "other_paths",
    "duplicate_of", "file_version", "missing_since", "pathassets_version",
    "decoder", "registered_at", "digest", "run_id", "code_version", "created_at",
})  # fmt: skip
_ENCODINGS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_MAX_INT = 2**63
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*|(0|[1-9][0-9]*)?\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Manifest:
    """The rows of a `slides.csv`.

    Attributes:
        path: The file; it need not exist.
        rows: One mapping per line, columns in the file's order; None where a cell is empty.
    """

    path: Path
    rows: tuple[Mapping[str, Value], ...] = ()
    _by_path: Mapping[str, Mapping[str, Value]] = field(default_factory=dict, repr=False)
    _by_name: Mapping[str, Mapping[str, Value]] = field(default_factory=dict, repr=False)

    def lookup(self, path: str | Path) -> dict[str, Any]:
        """The row of the slide file at `path`; empty when there is none. A row by path goes before one by name."""
        if is_uri(str(path)):
            return dict(self._by_path.get(str(path)) or self._by_name.get(name_of(str(path))) or {})
        absolute = Path(path).absolute()
        row = self._by_path.get(_key(absolute)) or self._by_path.get(_key(_real(absolute)))
        return dict(row or self._by_name.get(absolute.name) or {})

    def paths(self) -> list[Path]:
        """The files that the manifest names by path, absolute; a bare name that is no file beside it is left out, and URIs."""
        named = [row for row in self.rows if not self._is_name(row) and not is_uri(str(row["path"]))]
        return [_resolve(self.path.parent, str(row["path"])) for row in named]

    def uris(self) -> list[str]:
        """The slides in object stores that the manifest names."""
        return [str(row["path"]) for row in self.rows if is_uri(str(row["path"]))]

    def _is_name(self, row: Mapping[str, Value]) -> bool:
        return str(row["path"]) in self._by_name


def read_manifest(path: str | Path) -> Manifest:
    """The manifest at `path`; an empty one when there is no such file.

    Raises:
        ConfigError: `manifest_invalid`, with the line and what to write there: no column `path`, an `mpp` that is no number
            or that no slide has, two rows for one slide that differ, a column name that is taken, a file that is no text.
    """
    path = Path(path).absolute()
    if not path.exists():
        return Manifest(path)
    text = _decode(path)
    try:
        lines = list(_numbered_rows(text))
    except csv.Error as error:
        raise _invalid(path, None, f"is no table: {error}", "Save it as CSV (UTF-8).") from error
    if not lines:
        return Manifest(path)
    header = _header(path, lines[0][1])
    rows = [(number, _cells(path, number, header, cells)) for number, cells in lines[1:]]
    return _indexed(path, _typed(path, header, rows, decimal_comma=_delimiter(text) != ","))


def _decode(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _invalid(
            path, None, f"cannot be read: {error.strerror}", "Make it a file that this user may read."
        ) from error
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _invalid(path, line, "has characters that are not UTF-8", "Save it as CSV (UTF-8).") from error
    if "\0" in text:
        raise _invalid(path, text[: text.index("\0")].count("\n") + 1, "holds a zero byte", "Save it as CSV (UTF-8).")
    return text


def _delimiter(text: str) -> str:
    """What stands between cells: the commonest of comma, semicolon and tab in the first line that says anything."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(",;\t", key=first.count)


def _numbered_rows(text: str) -> Sequence[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    rows = []
    start = 1
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            rows.append((start, stripped))
        start = reader.line_num + 1
    return rows


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    names = [re.sub(r"\s+", "_", cell.strip()) for cell in cells]
    while names and not names[-1]:
        names.pop()  # spreadsheets leave empty columns at the end
    names = [name.lower() if name.lower() in {*TEXT_COLUMNS, "mpp"} else name for name in names]
    lowered = [name.lower() for name in names]
    if "path" not in lowered:
        raise _invalid(
            path, 1, f"has no column path (it has {', '.join(names)})", "Name the column of the files `path`."
        )
    for name in lowered:
        if not name:
            raise _invalid(path, 1, "has a column without a name", "Name it, or remove it.")
        if lowered.count(name) > 1:
            raise _invalid(path, 1, f"has the column {name} twice (capitals do not count)", "Rename or remove one.")
        if name in RESERVED:
            remedy = f"Rename it, for example to my_{name}; only mpp can be corrected here."
            raise _invalid(path, 1, f"has a column {name}, which is what the slide file itself says", remedy)
    return names


def _cells(path: Path, number: int, header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if any(cells[len(header) :]):
        remedy = "Put cells that hold a comma in double quotes."
        raise _invalid(path, number, f"has {len(cells)} cells where the first line has {len(header)}", remedy)
    row = dict(zip(header, [*cells, *[""] * len(header)], strict=False))
    if not row["path"]:
        raise _invalid(path, number, "has no path", "Name the slide file, or remove the line.")
    return row


def _typed(
    path: Path, header: Sequence[str], rows: Sequence[tuple[int, dict[str, str]]], *, decimal_comma: bool
) -> list[tuple[int, dict[str, Value]]]:
    typed: list[tuple[int, dict[str, Value]]] = [(number, {}) for number, _ in rows]
    for name in header:
        texts = [row[name] for _, row in rows]
        if name == "mpp":
            values: list[Value] = [_mpp(path, number, row[name], decimal_comma) for number, row in rows]
        else:
            values = [text or None for text in texts] if name in TEXT_COLUMNS else infer_column(texts)
        for (_, row), value in zip(typed, values, strict=True):
            row[name] = value
    return typed


def _mpp(path: Path, number: int, text: str, decimal_comma: bool) -> float | None:
    if not text:
        return None
    try:
        mpp = float(text.replace(",", ".") if decimal_comma else text)
    except ValueError:
        mpp = math.nan
    if not (math.isfinite(mpp) and mpp > 0):
        remedy = "Write a number above zero, such as 0.25, or leave the cell empty."
        raise _invalid(path, number, f"has mpp = {text!r}, which is no resolution in µm per pixel", remedy)
    if not is_plausible(mpp):
        remedy = f"Slides have {MIN_MPP:g} to {MAX_MPP:g}: write µm per pixel, such as 0.25, or leave the cell empty."
        raise _invalid(path, number, f"has mpp = {text!r}, which no slide has", remedy)
    return mpp


def infer_column(texts: Sequence[str]) -> list[Value]:
    """Cells of a column as whole numbers if all are, else numbers if all are, else text; None where empty.

    `007` is text: what begins with a zero is a name.
    """
    filled = [text for text in texts if text]
    if filled and all(_WHOLE.fullmatch(text) for text in filled):
        if all(-_MAX_INT <= int(text) < _MAX_INT for text in filled):
            return [int(text) if text else None for text in texts]
        return [text or None for text in texts]
    if filled and all(_NUMBER.fullmatch(text) and math.isfinite(float(text)) for text in filled):
        return [float(text) if text else None for text in texts]
    return [text or None for text in texts]


def _indexed(path: Path, rows: Sequence[tuple[int, dict[str, Value]]]) -> Manifest:
    by_path: dict[str, tuple[int, dict[str, Value]]] = {}
    by_name: dict[str, dict[str, Value]] = {}
    for number, row in rows:
        resolved = _resolve(path.parent, str(row["path"]))
        key = str(row["path"]) if is_uri(str(row["path"])) else _key(resolved)
        first = by_path.setdefault(key, (number, row))
        if {**first[1], "path": None} != {**row, "path": None}:
            remedy = "Keep one of the two lines."
            raise _invalid(path, number, f"says something else about {row['path']} than line {first[0]}", remedy)
        if PurePath(str(row["path"])).name == row["path"] and not resolved.exists():
            by_name[str(row["path"])] = row
    kept = {id(row): row for _, row in by_path.values()}
    return Manifest(path, tuple(kept.values()), {key: row for key, (_, row) in by_path.items()}, by_name)


def _resolve(folder: Path, text: str) -> Path:
    try:
        return Path(os.path.normpath(folder / Path(text).expanduser()))
    except RuntimeError:  # ~nobody
        return Path(os.path.normpath(folder / text))


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def _key(path: Path) -> str:
    return os.path.normpath(path)


def _invalid(path: Path, line: int | None, what: str, remedy: str) -> ConfigError:
    where = f"{path}, line {line}" if line else str(path)
    return ConfigError(f"{where}: {what}", reason=Reason.MANIFEST_INVALID, remedy=remedy)
