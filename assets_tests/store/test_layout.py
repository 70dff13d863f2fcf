from __future__ import annotations

from pathlib import Path

import pytest

from pathassets.store import layout
from pathassets.store.root import checked_key

HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "a/b",
    "/etc/passwd",
    "a\\b",
    "a\0b",
    ".hidden",
    "a b",
    "ä",
    "x" * 300,
    "a..b",
]


@pytest.mark.parametrize("slide_id", HOSTILE)
def test_no_slide_id_can_leave_the_store(slide_id: str):
    for make in (
        lambda: layout.table_key("tiles", slide_id),
        lambda: layout.group_key(slide_id, "a" * 16, "embeddings"),
        lambda: layout.tissue_labels_key(slide_id),
        lambda: layout.figure_key(slide_id, "x.png"),
    ):
        with pytest.raises(ValueError, match="slide id"):
            make()


@pytest.mark.parametrize("part", ["", "..", "a/b", "A", "a-b", "a.b"])
def test_parts_and_tables_are_plain_names(part: str):
    with pytest.raises(ValueError, match="part"):
        layout.table_key("tiles", "s-1", part)
    with pytest.raises(ValueError, match="table"):
        layout.table_key(part, "s-1")


@pytest.mark.parametrize("digest", ["", "../..", "xyz", "A" * 16, "abc"])
def test_digests_are_hexadecimal(digest: str):
    with pytest.raises(ValueError, match="digest"):
        layout.array_folder("s-1", digest)


@pytest.mark.parametrize("name", ["", "../x.png", ".x", "a/b.png"])
def test_figures_stay_in_their_folder(name: str):
    with pytest.raises(ValueError, match="figure"):
        layout.figure_key("s-1", name)


def test_the_slide_of_a_file_is_found_again():
    assert layout.table_slide(layout.table_key("tiles", "cmu-1_x.y-12345678", "px224")) == (
        "tiles",
        "cmu-1_x.y-12345678",
    )
    assert layout.table_slide(layout.table_key("slide_map", None, "a__b")) == ("slide_map", None)
    assert layout.table_slide(layout.schema_file_key("tiles")) is None


@pytest.mark.parametrize(
    "key",
    [
        "tables/tiles/notes.parquet", "tables/tiles/slide_id=s/a b.parquet", "tables/tiles/slide_id=../part.parquet",
        "tables/tiles/slide_id=s/deep/part.parquet", "tables/tiles/other/part.parquet", "tables/tiles/slide_id=s/part.csv",
        "tables/x", "arrays/s/0/embeddings.zarr", "",
    ],
)  # fmt: skip
def test_a_foreign_file_is_of_no_slide(key: str):
    assert layout.table_slide(key) is None


def test_two_recipes_never_share_a_part():
    assert layout.recipe_part("px224/uni") == "px224__uni"
    for recipe in ("a__b/c", "a/b__c", "a_/b", "a/_b"):
        with pytest.raises(ValueError, match="__"):
            layout.recipe_part(recipe)
    for recipe in ("a", "a/b/c", "A/b", "a/"):
        with pytest.raises(ValueError, match="recipe"):
            layout.recipe_part(recipe)


def test_every_key_is_one_that_the_root_takes():
    group = layout.group_key("s-1", "a" * 16, "embeddings")
    keys = [
        layout.table_key("tiles", "s-1"), layout.schema_file_key("tiles"), group, layout.marker_key(group),
        layout.sidecar_prefix(group), layout.thumbnail_key("s-1"), layout.figure_key(None, "map.html"),
        layout.cache_key("sha256", "/any/../path with ä"), layout.tissue_labels_key("s-1"),
    ]  # fmt: skip
    assert len({str(checked_key(key)) for key in keys}) == len(keys)


def test_uris_are_relative_inside_the_home_and_absolute_outside():
    assert layout.uri_prefix("/h/store", Path("/h")) == "store/"
    assert layout.uri_prefix("/h/data/st", Path("/h")) == "data/st/"
    assert layout.uri_prefix("/big/st", Path("/h")) == "/big/st/"
    assert layout.uri_prefix("s3://h/store", Path("/h")) == "s3://h/store/"


def test_the_locks_of_a_slide_and_of_its_arrays_guard_their_keys():
    digest = "ab" * 8
    arrays = layout.array_lock("s-1", digest, "embeddings")
    group = layout.group_key("s-1", digest, "embeddings")
    for key in (group, f"{group}/X/c/0/0", layout.marker_key(group), f"{layout.sidecar_prefix(group)}/0.parquet"):
        assert layout.guards(key) == [layout.slide_lock("s-1"), arrays]
    for key in (
        layout.table_key("tiles", "s-1", "px224"), "tables/tiles/slide_id=s-1",
        layout.tissue_labels_key("s-1"), layout.thumbnail_key("s-1"),
    ):  # fmt: skip
        assert layout.guards(key) == [layout.slide_lock("s-1")]
    for key in (
        layout.table_key("encoders", None), layout.schema_file_key("tiles"), layout.figure_key(None, "map.html"),
        layout.cache_key("weights", "x"), "tables", "arrays", "locks/slide-s-1.lock",
    ):  # fmt: skip
        assert layout.guards(key) == []


def test_a_long_slide_id_still_has_a_lock_name_that_a_file_system_takes():
    long, other = "x" * 190 + "-1", "x" * 190 + "-2"
    names = {layout.array_lock(slide, "a" * 64, "embeddings") for slide in (long, other)}
    assert len(names) == 2
    assert max(map(len, names)) < 250
