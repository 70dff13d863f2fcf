"""Catalog: what the dashboard knows of a study, asked of the snapshot.

Belongs here: opening the snapshot, and the questions that pages have. Does not belong: a reader's own questions
(`sql_box`), pixels, pictures.

Whatever names a slide, a recipe or a tile comes from an address that anybody may have written: it is looked up, never
put into a path or into SQL.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import polars as pl

from pathassets.config import Study
from pathassets.errors import PathassetsError, Reason, StudyError
from pathassets.steps.session import Session
from pathassets.store import layout
from pathassets.store.query import connect
from pathassets.store.schema import TABLES

if TYPE_CHECKING:
    import duckdb

SLIDES_IN_MEMORY = 8
# Of the manifest's columns, those that say where files lie.
_PATHS = ("tissue_mask",)
FOLDER = r"""(^|[\s"'(=:,\[])(?:/[^/\s"']+)+/"""
"""Folders in a sentence, for Python and for DuckDB; what stands before them is the first group."""


class UnknownNameError(PathassetsError, LookupError):
    """An address names a slide, a recipe or a tile that the snapshot does not have."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"there is no such {what} in this study", reason=Reason.FILE_MISSING, remedy=remedy)


class Catalog:
    """A study's snapshot, opened anew whenever it has been published anew.

    Args:
        study: The study.

    Attributes:
        study: The study.
        session: What opens slides and arrays.
    """

    def __init__(self, study: Study) -> None:
        self.study, self.session = study, Session(study)
        self._lock = threading.Lock()
        self._con: duckdb.DuckDBPyConnection | None = None
        self._opened = ""
        self._tiles = lru_cache(SLIDES_IN_MEMORY)(self._read_tiles)
        self._slides = lru_cache(1)(self._read_slides)

    @property
    def version(self) -> str:
        """Another one after each publication.

        Raises:
            StudyError: `file_missing` when nothing has been published.
        """
        try:
            found = layout.results_path(self.study.home).stat()
        except OSError as error:
            remedy = "Run `pathassets run SLIDES`, or `pathassets publish` when slides are done."
            raise StudyError("nothing has been published yet", reason=Reason.FILE_MISSING, remedy=remedy) from error
        return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"

    def frame(self, sql: str, *values: object) -> pl.DataFrame:
        """The answer to one of our own questions; tables are `results.<table>`, a reader's words are `values`."""
        with self._cursor() as cursor:
            return cursor.execute(sql, list(values)).pl()

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A way to ask of one's own: a long question holds up no other, and ends also when the snapshot is replaced."""
        version = self.version
        with self._lock:
            if self._con is None or self._opened != version:
                if self._con is not None:
                    self._con.close()
                self._con = connect(self.study.home, root=self.session.root)
                self._opened = version
            cursor = self._con.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    # -- slides ----------------------------------------------------------------------------------------------------

    def slides(self) -> pl.DataFrame:
        """All rows of `slides`, without where files lie: `file` is the name alone."""
        return self._slides(self.version)

    def slide(self, slide_id: str) -> dict[str, Any]:
        """One row of `slides`.

        Raises:
            UnknownNameError: There is none.
        """
        frame = self.slides().filter(pl.col("slide_id") == str(slide_id))  # a browser may send anything
        if frame.is_empty():
            raise UnknownNameError("slide", "Choose one on the page of all slides.")
        return frame.row(0, named=True)

    def labels(self) -> list[str]:
        """The manifest's columns in `slides`."""
        known = {*TABLES["slides"].names, "file", *_PATHS}
        return [name for name in self.slides().columns if name not in known]

    def recipes(self, slide_id: str | None = None) -> list[str]:
        """Recipes of a slide (of all slides) that have embeddings; the study's order, then the alphabet's."""
        where = "" if slide_id is None else "WHERE slide_id = ?"
        given = () if slide_id is None else (slide_id,)
        found = set(self.frame(f"SELECT DISTINCT recipe FROM results.embeddings {where}", *given)["recipe"])
        wanted = [recipe.key for recipe in self.study.recipes]
        return [key for key in wanted if key in found] + sorted(found - set(wanted))

    def tilings(self, slide_id: str) -> list[str]:
        """Tilings of a slide that have tiles."""
        frame = self.frame("SELECT DISTINCT tiling FROM results.tiles WHERE slide_id = ? ORDER BY 1", slide_id)
        return frame["tiling"].to_list()

    def views(self, slide_id: str) -> list[str]:
        """What a slide can be seen by: its recipes, then the tilings that have none."""
        recipes = self.recipes(slide_id)
        used = {tiling_of(recipe) for recipe in recipes}
        return [*recipes, *(tiling for tiling in self.tilings(slide_id) if tiling not in used)]

    # -- one slide -------------------------------------------------------------------------------------------------

    def tiles(self, slide_id: str, tiling: str) -> pl.DataFrame:
        """The slide's rows of `tiles` in order; empty where it has none."""
        return self._tiles(self.version, slide_id, tiling)

    def tile(self, slide_id: str, tiling: str, tile_id: int) -> dict[str, Any]:
        """One row of `tiles`.

        Raises:
            UnknownNameError: There is none.
        """
        found = self.tiles(slide_id, tiling).filter(pl.col("tile_id") == tile_id)
        if found.is_empty():
            raise UnknownNameError("tile", "Choose one on the slide's page.")
        return found.row(0, named=True)

    def outlines(self, slide_id: str) -> list[str]:
        """The slide's pieces of tissue as GeoJSON in level-0 px."""
        sql = "SELECT geometry FROM results.tissues WHERE slide_id = ? ORDER BY tissue_id"
        return self.frame(sql, slide_id)["geometry"].to_list()

    def pieces(self, slide_id: str) -> list[tuple[int, float]]:
        """Number and area (mm²) of the slide's pieces of tissue, as in `outlines`."""
        sql = "SELECT tissue_id, coalesce(area_mm2, 0.0) FROM results.tissues WHERE slide_id = ? ORDER BY tissue_id"
        return list(self.frame(sql, slide_id).iter_rows())

    def outcomes(self, slide_id: str) -> pl.DataFrame:
        """What became of the slide's steps, in words that name no folder."""
        columns = "o.step, o.tiling, o.recipe, o.status, o.reason, o.message, o.remedy, o.seconds, o.run_id, s.path"
        sql = f"SELECT {columns} FROM results.outcomes o JOIN results.slides s USING (slide_id) WHERE slide_id = ?"
        frame = self.frame(f"{sql} ORDER BY o.created_at", slide_id)
        texts = {
            name: [text and without_folders(text, path) for text, path in zip(frame[name], frame["path"], strict=True)]
            for name in ("message", "remedy")
        }
        return frame.drop("path").with_columns(
            pl.Series(name, values, dtype=pl.String) for name, values in texts.items()
        )

    def embeddings_row(self, slide_id: str, recipe: str) -> dict[str, Any] | None:
        """The slide's row of `embeddings`, `uri` made absolute; None where there is none."""
        frame = self.frame("FROM results.embeddings WHERE slide_id = ? AND recipe = ?", slide_id, recipe)
        return None if frame.is_empty() else self._absolute(frame.row(0, named=True))

    def embeddings_rows(self, recipe: str) -> list[dict[str, Any]]:
        """The rows of `embeddings` of all slides of a recipe, by slide."""
        frame = self.frame("FROM results.embeddings WHERE recipe = ? ORDER BY slide_id", recipe)
        return [self._absolute(row) for row in frame.iter_rows(named=True)]

    def derived_uri(self, slide_id: str, recipe: str) -> str | None:
        """Where the slide's PCA and UMAP lie; None where there are none."""
        sql = "SELECT uri FROM results.derived_arrays WHERE slide_id = ? AND recipe = ? AND name = 'domains'"
        frame = self.frame(sql, slide_id, recipe)
        return None if frame.is_empty() else str(self._absolute(frame.row(0, named=True))["uri"])

    def _absolute(self, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "uri": str(self.study.home / row["uri"])}  # an absolute uri stays what it is

    def _read_slides(self, version: str) -> pl.DataFrame:
        frame = self.frame("SELECT * FROM results.slides ORDER BY slide_id")
        names = [PurePosixPath(path).name for path in frame["path"]]
        return frame.drop("path", "other_paths").with_columns(pl.Series("file", names, dtype=pl.String))

    def _read_tiles(self, version: str, slide_id: str, tiling: str) -> pl.DataFrame:
        sql = "FROM results.tiles WHERE slide_id = ? AND tiling = ? ORDER BY tile_id"
        return self.frame(sql, slide_id, tiling)


def without_folders(text: str, path: str = "") -> str:
    """`text` with the names of files alone; `path` is taken as a whole, whatever stands in it."""
    whole = text.replace(path, PurePosixPath(path).name) if path else text
    return re.sub(FOLDER, r"\1…/", whole)


def tiling_of(view: str) -> str:
    """The tiling of a recipe `<tiling>/<name>`, or of a tiling alone."""
    return view.partition("/")[0]
