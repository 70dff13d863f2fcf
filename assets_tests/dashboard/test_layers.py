from __future__ import annotations

import numpy as np
import pytest

from pathassets.dashboard.catalog import Catalog, UnknownNameError
from pathassets.dashboard.layers import Layers, at_least, inside, pca_colours
from pathassets.figures.interactive import Layer
from pathassets.store.derived import read_derived

from .conftest import VIEW, Finished


@pytest.fixture(scope="module")
def layers(catalog: Catalog) -> Layers:
    return Layers(catalog)


def test_the_menu_has_domains_terms_colours_and_every_numeric_column(layers: Layers, finished: Finished):
    keys = [choice.key for choice in layers.choices(finished.first, VIEW)]
    assert {"domain:leiden", "domain:utag", "pca", "term:adipose", "term:muscularis", "column:sharpness"} <= set(keys)
    assert "column:tile_id" not in keys
    alone = [choice.key for choice in layers.choices(finished.first, "small")]
    assert alone == [key for key in keys if key.startswith("column:")]
    assert layers.choices(finished.half, "small") == []


def test_every_layer_of_the_menu_has_a_value_per_tile(layers: Layers, catalog: Catalog, finished: Finished):
    n = len(catalog.tiles(finished.first, "small"))
    for choice in layers.choices(finished.first, VIEW):
        assert choice.about, choice.key
        values = np.asarray(layers.layer(finished.first, VIEW, choice.key).values)
        assert len(values) == n, choice.key
        assert np.isfinite(values.astype(float)).any(), choice.key


def test_values_belong_to_their_tiles(layers: Layers, catalog: Catalog, finished: Finished):
    domains = np.asarray(layers.layer(finished.first, VIEW, "domain:leiden").values)
    sql = "SELECT tile_id, domain FROM results.domains WHERE slide_id = ? AND recipe = ? AND variant = 'leiden'"
    for tile_id, domain in catalog.frame(sql, finished.first, VIEW).iter_rows():
        assert domains[tile_id] == domain
    xy = {places.method: places.xy for places in layers.places(finished.first, VIEW)}
    stored = read_derived(catalog.session.root, catalog.derived_uri(finished.first, VIEW))
    for i, tile_id in enumerate(stored.obs["tile_id"]):
        assert xy["umap"][tile_id] == pytest.approx(stored.obsm["X_umap"][i])
        assert xy["pca"][tile_id] == pytest.approx(stored.obsm["X_pca"][i, :2])


@pytest.mark.parametrize(
    "key", ["", "pca:x", "domain:none", "term:none", "column:tile_id", "column:slide_id", "column:'; --"]
)
def test_a_layer_that_is_not_in_the_menu_is_refused(layers: Layers, finished: Finished, key: str):
    with pytest.raises(UnknownNameError):
        layers.layer(finished.first, VIEW, key)


def test_an_unknown_scale_is_the_palettes(layers: Layers, finished: Finished):
    assert layers.layer(finished.first, VIEW, "column:eosin", "jet").scale == "cividis"
    assert layers.layer(finished.first, VIEW, "column:eosin", "viridis").scale == "viridis"


def test_hiding_low_values_leaves_colours_as_they_are():
    layer = Layer("x", np.arange(101.0))
    cut = at_least(layer, 50)
    assert np.isnan(np.asarray(cut.values)).sum() == 50
    assert cut.limits == pytest.approx((1, 99))
    assert at_least(layer, None) is layer
    domains = Layer("d", np.array([0, 1]), kind="domain")
    assert at_least(domains, 1) is domains


def test_pca_colours_spread_over_the_scale_and_leave_missing_tiles_out():
    components = np.random.default_rng(0).normal(size=(500, 5))
    components[3] = np.nan
    colours = pca_colours(components)
    assert np.isnan(colours[3]).all()
    known = np.delete(colours, 3, axis=0)
    assert known.min() == 0
    assert known.max() == 255
    order = np.argsort(np.delete(components, 3, axis=0)[:, 1])
    assert (np.diff(known[order, 1]) >= 0).all()
    assert (pca_colours(components[4:, :1])[:, 1:] == 127).all()


def test_tiles_that_all_lie_in_one_place_are_not_laid_out(layers: Layers, finished: Finished, monkeypatch):
    assert layers.places(finished.first, VIEW)
    monkeypatch.setattr(layers, "_derived", lambda *_: np.zeros((5, 2)))
    assert layers.places(finished.first, VIEW) == []


def test_a_lasso_takes_the_points_within():
    xy = np.array([[0.5, 0.5], [1.5, 0.5], [0.2, 0.9], [np.nan, 0.5]])
    assert inside(xy, [(0, 0), (1, 0), (1, 1), (0, 1)]).tolist() == [True, False, True, False]
    assert not inside(xy, [(0, 0), (1, 1)]).any()
    bow_tie = inside(xy, [(0, 0), (1, 1), (1, 0), (0, 1)])
    assert bow_tie.shape == (4,)
