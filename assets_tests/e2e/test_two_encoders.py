"""Two encoders on one slide, one of them on a second tiling as well: two branches of lineage that share what is equal."""

from __future__ import annotations

import dagster as dg
import polars as pl
import pytest

from pathassets.config import CONFIG_FILE, Study
from pathassets.definitions import build_defs
from pathassets.defs.partitions import add_slides, range_tags
from pathassets.steps.publish import publish_results
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.store.query import query

pytestmark = pytest.mark.e2e
CONFIG = """
[study]
device = "cpu"
[tilings.small]
tile_px = 160
mpp = 1.0
[tilings.large]
tile_px = 160
mpp = 2.0
"""
RECIPE = """
[[recipes]]
encoder = "timm/test_{network}"
name = "{network}"
random_weights = true
tiling = "{tiling}"
"""
BRANCHES = [("small", "vit"), ("small", "resnet"), ("large", "vit")]


class Run:
    """One slide through all recipes in one run of Dagster's, with the calls that made tiles."""

    def __init__(self, home, instance, slide_file, patch):
        (home / CONFIG_FILE).write_text(CONFIG + "".join(RECIPE.format(tiling=t, network=n) for t, n in BRANCHES))
        self.study, self.instance, self.tilings = Study(home), instance, []
        from pathassets.steps import tiles

        make = tiles.make

        def counting(session, slide_id, node, result_digest):
            self.tilings.append(node.tiling.name)
            return make(session, slide_id, node, result_digest)

        patch.setattr(tiles, "make", counting)
        self.slide_id = register(Session(self.study), [slide_file])[0].slide_id
        add_slides(instance, [self.slide_id])
        job = build_defs(self.study).resolve_job_def("slides")
        self.result = job.execute_in_process(instance=instance, tags=range_tags([self.slide_id]))
        publish_results(Session(self.study))

    def sql(self, text: str) -> pl.DataFrame:
        return query(self.study.home, text)

    def tags(self, *key: str) -> dict[str, str]:
        """Those of the slide's one materialisation of an asset."""
        wanted = dg.AssetRecordsFilter(dg.AssetKey(key), asset_partitions=[self.slide_id])
        (record,) = self.instance.fetch_materializations(wanted, 10).records
        return record.asset_materialization.tags


@pytest.fixture(scope="module")
def run(tmp_path_factory, slides):
    with dg.instance_for_test() as instance, pytest.MonkeyPatch.context() as patch:
        yield Run(tmp_path_factory.mktemp("two"), instance, slides[0], patch)


def test_the_run_succeeds_and_every_branch_has_its_own_assets(run):
    assert run.result.success
    graph = build_defs(run.study).resolve_asset_graph()
    for tiling, recipe in BRANCHES:
        embeddings = dg.AssetKey([tiling, recipe, "embeddings"])
        assert graph.get(embeddings).parent_keys == {dg.AssetKey([tiling, "tiles"])}
        below = {dg.AssetKey([tiling, recipe, name]) for name in ("slide_vector", "spatial_domains")}
        assert below <= graph.get(embeddings).child_keys
        assert all(key.path[:2] == [tiling, recipe] for key in graph.get(embeddings).child_keys if len(key.path) == 3)
    for tiling, recipes in (("small", {"vit", "resnet"}), ("large", {"vit"})):
        tiles = graph.get(dg.AssetKey([tiling, "tiles"]))
        assert tiles.parent_keys == {dg.AssetKey("tissue")}
        assert {key.path[1] for key in tiles.child_keys if key.path[-1] == "embeddings"} == recipes


def test_each_encoder_has_its_row_of_embeddings(run):
    rows = run.sql("SELECT recipe, encoder, dim, digest, tiles_digest FROM embeddings ORDER BY recipe")
    assert rows["recipe"].to_list() == ["large/vit", "small/resnet", "small/vit"]
    assert rows.filter(pl.col("recipe").str.starts_with("small/"))["dim"].to_list() == [96, 64]
    assert rows["digest"].n_unique() == 3
    small = rows.filter(pl.col("recipe").str.starts_with("small/"))
    assert small["tiles_digest"].n_unique() == 1, "one tiling is one set of tiles"
    assert rows["tiles_digest"].n_unique() == 2, "another tiling is another"


def test_tiles_are_made_once_for_each_tiling(run):
    assert sorted(run.tilings) == ["large", "small"]
    counts = run.sql(
        "SELECT tiling, count(*) AS n, count(DISTINCT digest) AS digests FROM tiles GROUP BY ALL ORDER BY tiling"
    )
    assert counts["digests"].to_list() == [1, 1]
    large, small = counts["n"]
    assert 0 < large < small, "tiles of four times the area are fewer"
    wanted = run.sql("SELECT recipe, n_tiles FROM embeddings ORDER BY recipe")["n_tiles"].to_list()
    assert wanted == [large, small, small]


def test_dagsters_versions_lead_from_each_branch_to_the_tiles_that_it_was_made_from(run):
    versions = {tiling: run.tags(tiling, "tiles")["dagster/data_version"] for tiling in ("small", "large")}
    assert versions["small"] != versions["large"]
    for tiling, recipe in BRANCHES:
        tags = run.tags(tiling, recipe, "embeddings")
        inputs = {name: version for name, version in tags.items() if name.startswith("dagster/input_data_version/")}
        assert inputs == {f"dagster/input_data_version/{tiling}/tiles": versions[tiling]}
        row = run.sql(f"SELECT digest FROM embeddings WHERE recipe = '{tiling}/{recipe}'")["digest"][0]
        assert tags["dagster/data_version"] == row
        domains = run.tags(tiling, recipe, "spatial_domains")
        assert domains[f"dagster/input_data_version/{tiling}/{recipe}/embeddings"] == row


def test_no_tile_of_a_shared_tiling_is_another_for_the_second_encoder(run):
    import anndata

    rows = Session(run.study).tables.scan("embeddings").filter(pl.col("recipe").str.starts_with("small/")).collect()
    first, second = (anndata.read_zarr(uri) for uri in rows["uri"])
    assert (first.obsm["spatial"] == second.obsm["spatial"]).all()
    assert first.X.shape[1] != second.X.shape[1]
