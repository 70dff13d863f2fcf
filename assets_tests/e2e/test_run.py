"""`pathassets run` on good slides: everything is made, remembered, and made only once."""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import pytest
from support.commands import answer, fingerprint

from pathassets import Study

pytestmark = pytest.mark.e2e
README = Path(__file__).resolve().parents[2] / "README.md"
QUERIES = re.findall(r"```sql\n-- (.*?)\n(.*?)```", README.read_text(encoding="utf-8"), re.S)


def test_every_table_has_rows_for_every_slide(study):
    for table in ("slides", "tissues", "tiles", "embeddings", "slide_vectors", "domains", "text_scores", "timings"):
        assert answer(study, f"SELECT count(DISTINCT slide_id) AS n FROM {table}") == [{"n": 2}], table
    assert answer(study, "SELECT DISTINCT status FROM outcomes") == [{"status": "ok"}]
    assert answer(study, "SELECT count(*) AS n FROM slide_map")[0]["n"] == 2


@pytest.mark.parametrize(("question", "query"), QUERIES, ids=[question for question, _ in QUERIES])
def test_the_readme_s_questions_have_answers(study, question, query):
    rows = answer(study, query)
    assert rows or "went wrong" in question


def test_there_are_a_dozen_questions():
    assert len(QUERIES) >= 12


def test_a_second_run_does_nothing_and_changes_no_byte(study, slides, pathassets):
    before = fingerprint(study)
    run = pathassets("run", *slides, "--home", study)
    assert run.returncode == 0
    assert "nothing to do" in run.stdout
    assert fingerprint(study) == before


def test_embeddings_open_in_anndata_and_feed_scanpy(study):
    import scanpy

    row = Study(study).scan("embeddings").collect().row(0, named=True)
    adata = anndata.read_zarr(row["uri"])
    assert adata.shape == (row["n_tiles"], row["dim"])
    adata = adata[adata.obs["status"] == "ok"].copy()
    adata.X = adata.X.astype("float32")
    scanpy.pp.pca(adata, n_comps=5)
    assert adata.obsm["X_pca"].shape == (adata.n_obs, 5)
    assert adata.obsm["spatial"].shape == (adata.n_obs, 2)


def test_domains_carry_the_name_of_their_best_term(study):
    labels = answer(study, "SELECT DISTINCT label FROM domain_summary")
    assert {row["label"] for row in labels} <= set(Study(study).recipes[0].text.terms)


def test_a_new_term_touches_text_similarity_alone(tmp_path, slides, pathassets):
    home = tmp_path / "home"
    assert pathassets("run", slides[0], "--home", home).returncode == 0
    config = home / "pathassets.toml"
    config.write_text(config.read_text().replace('"blood"]', '"blood", "musclaris"]'))
    before = answer(home, "SELECT step, digest, created_at FROM outcomes ORDER BY step")
    assert pathassets("run", slides[0], "--home", home).returncode == 0
    after = answer(home, "SELECT step, digest, created_at FROM outcomes ORDER BY step")
    changed = {new["step"] for old, new in zip(before, after, strict=True) if old != new}
    assert changed == {"text_similarity"}
    assert answer(home, "SELECT DISTINCT term FROM text_scores WHERE term = 'musclaris'")


def test_the_manifest_s_columns_reach_sql_and_move_nothing(tmp_path, slides, pathassets):
    home = tmp_path / "home"
    assert pathassets("run", slides[0], "--home", home).returncode == 0
    (home / "slides.csv").write_text(f"path,patient,stage\n{slides[0]},P7,II\n")
    before = answer(home, "SELECT digest FROM embeddings")
    assert pathassets("run", slides[0], "--home", home).returncode == 0
    assert answer(home, "SELECT patient, stage FROM slides") == [{"patient": "P7", "stage": "II"}]
    assert answer(home, "SELECT digest FROM embeddings") == before


def test_a_dry_run_tells_and_writes_nothing(tmp_path, slides, pathassets):
    home = tmp_path / "home"
    run = pathassets("run", slides[0], "--home", home, "--dry-run", "--device", "cpu,cpu")
    assert run.returncode == 0, run.stderr
    assert "nothing was written" in run.stdout
    assert run.stdout.split("devices: ")[1].count("cpu (") == 2
    assert not home.exists()


def test_a_timm_model_with_random_weights_says_so(tmp_path, slides, pathassets):
    home = tmp_path / "home"
    refused = pathassets("run", slides[0], "--home", home, "--encoder", "timm/test_vit")
    assert refused.returncode == 2
    assert "weights_missing" in refused.stderr
    run = pathassets(
        "run", slides[0], "--home", home, "--encoder", "timm/test_vit", "--random-weights", "--tile-px", 160
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert answer(home, "SELECT DISTINCT random_weights, left(weights_sha256, 7) AS w FROM embeddings") == [
        {"random_weights": True, "w": "random-"}
    ]
    keys = {row["recipe"] for row in answer(home, "SELECT DISTINCT recipe FROM embeddings")}
    assert keys == {"px160_mpp050/timm_test_vit"}
