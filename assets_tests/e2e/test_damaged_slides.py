"""Damaged slides through a whole run: bad tiles are named and left out, what is too bad fails in words, the others are done."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.commands import answer, fingerprint
from support.damage import Level, damage

from pathassets.config import Study
from pathassets.store import open_root
from pathassets.store.arrays import Embeddings, read_embeddings

pytestmark = pytest.mark.e2e

MOLLUSCUM, HER2ST, TCGA, CMU = (
    "molluscum_HE_skin.tif",
    "her2st_C2_HE_pyr.tif",
    "TCGA-CR-7395-01A-01-TS1.svs",
    "CMU-1-Small-Region.svs",
)


def richest(path: Path, n: int) -> list[int]:
    """The compressed tiles of level 0 that hold most: they lie in tissue."""
    return [int(tile) for tile in np.argsort(Level.of(path).counts)[::-1][:n]]


class Ward:
    """Slides in all states, and a study of them."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self.home, self.inbox = folder / "home", folder / "in"
        self.inbox.mkdir()
        slides = data_dir / "slides"
        self._copy(slides / MOLLUSCUM, "whole.tif")
        self.hurt = self._copy(slides / MOLLUSCUM, "hurt.tif")
        self.compressed = richest(self.hurt, 3)
        damage(self.hurt, self.compressed[:2], "random bytes")
        damage(self.hurt, self.compressed[2:], "cut off in the middle")
        worse = self._copy(slides / HER2ST, "worse.tif")
        damage(worse, richest(worse, 200))
        for source, name in ((HER2ST, "coarse.tif"), (TCGA, "coarse.svs")):
            coarse = self._copy(slides / source, name)
            damage(coarse, range(len(Level.of(coarse).counts)))
        self._copy(slides / CMU, "small.svs")
        self._copy(data_dir / "odd-slides" / "openslide-python_unreadable.svs", "unreadable.svs")

    def _copy(self, source: Path, name: str) -> Path:
        return Path(shutil.copy(source, self.inbox / name))

    def ask(self, query: str) -> dict[str, dict]:
        """Rows of a query with a column `path`, by the file's name."""
        return {Path(row["path"]).name: row for row in answer(self.home, query)}

    def embeddings(self, name: str) -> Embeddings:
        row = Study(self.home).scan("embeddings").filter(slide_id=self.ids[name]).collect().row(0, named=True)
        return read_embeddings(open_root(self.home / "store"), row["uri"])

    @property
    def ids(self) -> dict[str, str]:
        return {name: row["slide_id"] for name, row in self.ask("SELECT path, slide_id FROM slides").items()}


@pytest.fixture(scope="module")
def ward(tmp_path_factory, data_dir, pathassets) -> Ward:
    found = Ward(tmp_path_factory.mktemp("ward"), data_dir)
    assert pathassets("init", found.home).returncode == 0
    (found.home / "slides.csv").write_text(f"path,mpp\n{found.inbox / 'coarse.svs'},0.5\n")
    run = pathassets("run", found.inbox, "--home", found.home)
    assert run.returncode == 1, run.stdout + run.stderr
    return found


def test_each_slide_gets_the_outcome_that_it_deserves(ward):
    failed = ward.ask(
        "SELECT s.path, o.step, o.reason, o.message, o.remedy FROM outcomes o JOIN slides s USING (slide_id) "
        "WHERE o.status = 'failed'"
    )
    reasons = {name: (row["step"], row["reason"]) for name, row in failed.items()}
    assert reasons == {
        "worse.tif": ("embeddings", "too_many_bad_tiles"),
        "coarse.tif": ("embeddings", "too_many_bad_tiles"),
        "coarse.svs": ("embeddings", "too_many_bad_tiles"),
        "unreadable.svs": ("slide", "file_unreadable"),
    }
    assert all(row["message"] and row["remedy"] for row in failed.values())
    flagged = ward.ask(
        "SELECT s.path, o.reason, o.message FROM outcomes o JOIN slides s USING (slide_id) "
        "WHERE o.step = 'embeddings' AND o.status = 'flagged'"
    )
    assert {name: row["reason"] for name, row in flagged.items()} == {"hurt.tif": "bad_tiles"}
    done = ward.ask("SELECT path, n_tiles, n_bad_tiles FROM embeddings JOIN slides USING (slide_id)")
    assert set(done) == {"whole.tif", "hurt.tif", "small.svs"}
    assert done["hurt.tif"]["n_tiles"] == done["whole.tif"]["n_tiles"] > 1000
    assert f"{done['hurt.tif']['n_bad_tiles']} tiles cannot be read" in flagged["hurt.tif"]["message"]


def test_the_bad_tiles_are_those_that_touch_the_damage_and_no_other_bit_differs(ward):
    hurt, whole = ward.embeddings("hurt.tif"), ward.embeddings("whole.tif")
    xy, side = hurt.obs.select("x_px", "y_px").to_numpy(), int(hurt.obs["size_px"][0])
    bad = Level.of(ward.hurt).touched(ward.compressed, xy, side, side)
    assert 0 < bad.sum() < 0.05 * hurt.n_tiles
    assert np.array_equal(~hurt.ok, bad)
    assert set(hurt.obs["reason"].drop_nulls()) == {"pixels_unreadable"}
    assert np.array_equal(xy, whole.obs.select("x_px", "y_px").to_numpy())
    assert np.isnan(hurt.read()[bad]).all()
    assert np.array_equal(hurt.read()[~bad], whole.read()[~bad])


def test_what_follows_leaves_the_bad_tiles_out(ward):
    hurt, slide_id = ward.embeddings("hurt.tif"), ward.ids["hurt.tif"]
    bad, good = hurt.obs["tile_id"].to_numpy()[~hurt.ok], int(hurt.ok.sum())
    tables = Study(ward.home)
    vectors = tables.scan("slide_vectors").filter(slide_id=slide_id, method="mean").collect()
    slide = vectors.filter(vectors["tissue_id"].is_null()).row(0, named=True)
    assert slide["n_tiles"] == good
    np.testing.assert_allclose(slide["vector"], hurt.read()[hurt.ok].astype(np.float64).mean(0), rtol=1e-3, atol=1e-4)
    for table, of_each in (("domains", "variant"), ("text_scores", "term")):
        rows = tables.scan(table).filter(slide_id=slide_id).collect()
        assert not set(rows["tile_id"]) & set(bad.tolist()), table
        assert rows.group_by(of_each).len()["len"].unique().to_list() == [good], table


def test_a_second_run_changes_nothing(ward, pathassets):
    before = fingerprint(ward.home)
    assert pathassets("run", ward.inbox, "--home", ward.home).returncode == 1
    assert fingerprint(ward.home) == before
