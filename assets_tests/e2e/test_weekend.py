"""A weekend at small size, through the real daemon with automation on."""

from __future__ import annotations

import pytest
from support.weekend import Weekend

from pathassets.steps.nodes import chain

pytestmark = pytest.mark.e2e


def odd_slides(data):
    """Real files of which no chain can come."""
    names = ("openslide-python_unopenable.tiff", "openslide-python_unreadable.svs")
    return tuple(path for name in names if data is not None and (path := data / "odd-slides" / name).is_file())


def test_a_weekend(tmp_path, request):
    try:
        data = request.getfixturevalue("data_dir")
    except pytest.skip.Exception:
        data = None
    weekend = Weekend(tmp_path / "home", good=6, odd=odd_slides(data))
    weekend.pass_by()

    for node in chain(weekend.study):
        made = {one: n for one, n in weekend.after[node.key].items() if one in weekend.ids}
        assert set(made) == set(weekend.ids), node.key
        once = 2 if node in weekend.upgraded else 1
        assert set(made.values()) == {once}, (
            f"{node.key}: what depends on the two recipes again, nothing else, nothing twice"
        )
    rows = weekend.study.scan("outcomes").collect()
    usable = rows.filter(rows["status"] != "failed")  # noise has domains that deserve a look, and are results
    counts = {one: usable.filter(slide_id=one).height for one in weekend.ids}
    assert set(counts.values()) == {len(chain(weekend.study))}, counts
    failed = weekend.failed()
    assert set(failed) == set(weekend.bad)
    assert all(row["reason"] and row["remedy"] for row in failed.values())
    assert weekend.read["errors"] == []
    assert weekend.read["reads"] > 10
    assert weekend.read["most"] == len(weekend.ids) + len(weekend.bad)
    verdict = weekend.verify()
    assert verdict.returncode == 0, verdict.stdout
