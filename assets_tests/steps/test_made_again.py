"""Results that are current and made again on request: who reads them meanwhile notices nothing, whatever happens."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from pathassets.config import Study
from pathassets.engine import pipeline
from pathassets.steps.batch import run_batch
from pathassets.steps.chain import pending
from pathassets.steps.nodes import Step, chain
from pathassets.steps.publish import publish_results
from pathassets.steps.session import Session
from pathassets.store.arrays import read_embeddings
from pathassets.store.census import take_census
from pathassets.store.derived import read_derived
from pathassets.store.garbage import Kind, find_waste
from pathassets.store.query import query
from pathassets.store.verify import verify

MADE = ("embeddings", "derived_arrays")


class Powerless(BaseException):
    """The power fails."""


@pytest.fixture
def study(finished, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(finished.study.home, home)
    study = Study(home)
    publish_results(Session(study))
    return study


def make_again(study):
    session, results = Session(study), []
    (slide_id,) = session.tables.scan("slides").select("slide_id").collect()["slide_id"]
    nodes = [node for node in chain(study) if node.step in (Step.EMBEDDINGS, Step.SPATIAL_DOMAINS)]
    run_batch(session, [slide_id], nodes, results.append, force=True)
    assert [(result.outcome.status, result.unchanged) for result in results] == [("ok", False)] * 2


def places(study):
    return {table: study.scan(table).collect()["uri"].to_list() for table in MADE}


def numbers(study):
    session, uris = Session(study), places(study)
    arrays = read_derived(session.root, uris["derived_arrays"][0])
    return [read_embeddings(session.root, uris["embeddings"][0]).read(), arrays.obsm["X_pca"], arrays.obsm["X_umap"]]


def test_what_is_made_again_lies_beside_what_is_read_and_goes_back_the_next_time(study):
    first, before = places(study), numbers(study)
    held = read_embeddings(Session(study).root, first["embeddings"][0])
    make_again(study)
    second = places(study)
    assert all(first[table] != second[table] for table in MADE)
    assert all(np.array_equal(a, b) for a, b in zip(before, numbers(study), strict=True))
    assert np.array_equal(held.read(), before[0])  # who has opened the old ones may go on
    assert [
        finding for finding in verify(Session(study).root, study.home, deep=True).findings if not finding.harmless
    ] == []
    make_again(study)
    assert places(study) == first
    publish_results(Session(study))
    assert query(study.home, "SELECT count(*) AS n FROM embeddings")["n"].to_list() == [1]


def test_when_the_power_fails_all_is_as_it_was(study, monkeypatch):
    first, before = places(study), numbers(study)

    def fail(*_, **__):
        raise Powerless

    monkeypatch.setattr(pipeline, "read_batch", fail)
    with pytest.raises(Powerless):
        make_again(study)
    monkeypatch.undo()
    assert places(study) == first
    assert all(np.array_equal(a, b) for a, b in zip(before, numbers(study), strict=True))
    (slide_id,) = study.scan("slides").collect()["slide_id"]
    assert pending(Session(study), slide_id, chain(study)) == []
    make_again(study)
    assert places(study)["embeddings"] != first["embeddings"]


def test_the_ones_of_before_are_waste_of_no_one(study):
    first = places(study)
    make_again(study)
    publish_results(Session(study))
    root = Session(study).root
    found = find_waste(root, take_census(root), published=(), older_than=0.0)
    waste = {root.address(one.key) for one in found if one.kind is Kind.GROUP}
    assert waste == {uris[0] for uris in first.values()}
