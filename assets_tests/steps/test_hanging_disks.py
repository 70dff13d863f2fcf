"""A disk that never answers costs its slide, in the steps before the engine too; the thread that waits for it is left behind."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tifffile

from pathassets.config import CONFIG_FILE, Study
from pathassets.slides import probe
from pathassets.slides.watched import watched_slide
from pathassets.steps.batch import run_batch
from pathassets.steps.nodes import chain
from pathassets.steps.register import register
from pathassets.steps.session import Session

REMEDY = "Check the disk or network that the file lies on."


class Hanging:
    """A reader whose pixels never come."""

    def __init__(self, reader, released):
        self._reader, self._released = reader, released

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def read_level(self, *arguments):
        self._released.wait()
        raise OSError(5, "Input/output error")


@pytest.fixture
def released():
    """Set at the end, so that no thread waits for ever."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, np.full((900, 900, 3), 200, np.uint8), photometric="rgb", tile=(256, 256),
                     resolution=(20_000, 20_000), resolutionunit="CENTIMETER")  # fmt: skip
    return path


@pytest.fixture
def run(tmp_path, path):
    """Runs a slide's first steps; gives the outcome of the last."""
    (tmp_path / CONFIG_FILE).write_text('[study]\ndevice = "cpu"\n[tissue]\nmethod = "none"\n')
    slide_id = register(Session(Study(tmp_path)), [path])[0].slide_id

    def steps(n, stall_seconds=300.0):
        session = Session(Study(tmp_path, stall_seconds=stall_seconds))
        results = []
        run_batch(session, [slide_id], chain(session.study)[:n], results.append)
        return results[-1].outcome

    return steps


def test_opening_is_given_up(run, released, monkeypatch):
    monkeypatch.setattr(probe, "open_slide", lambda path, mpp=None: released.wait())
    outcome = run(1, 0.2)
    assert (outcome.status, outcome.reason, outcome.remedy) == ("failed", "pixels_unreadable", REMEDY)
    assert "a.tiff has taken more than 0.2 s" in outcome.message


@pytest.mark.parametrize("step", [2, 3])
def test_a_read_of_tissue_and_of_tiles_is_given_up(run, released, monkeypatch, step):
    assert run(step - 1).usable
    real = probe.open_slide
    monkeypatch.setattr(
        probe, "open_slide", lambda path, mpp=None: real(path, mpp=mpp).seen_through(lambda r: Hanging(r, released))
    )
    outcome = run(step, 3.0)  # opening must be well within it
    assert (outcome.status, outcome.reason, outcome.remedy) == ("failed", "pixels_unreadable", REMEDY)
    assert "a.tiff: reading" in outcome.message
    assert "of level 0 has taken more than 3 s" in outcome.message


def test_what_opening_raises_is_its_own(path, monkeypatch):
    def fails(path, mpp=None):
        raise TimeoutError("its own")

    monkeypatch.setattr(probe, "open_slide", fails)
    with pytest.raises(TimeoutError, match="its own"), watched_slide(path, 300.0):
        pass
