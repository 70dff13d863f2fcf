"""Several slides as one stream, on one device or shared out over two: none waits for another, none harms another."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from support.streams import SIZE, FakeSlide, Mean, Memory, encoder_of, grid, plan_of, truth, wait_until

from pathassets.encoders import load_encoder
from pathassets.engine import Job, Settings, embed_slides
from pathassets.errors import Reason, SlideError


class Stream:
    """Jobs with a writer each, and what became of them."""

    def __init__(self, encoder=None, plan=None):
        self.encoder, self.plan = encoder or encoder_of(Mean()), plan or plan_of()
        self.writers: dict[tuple[str, object], Memory] = {}
        self.finished = {}

    def job(self, name, n=40, slide=None, **changes) -> Job:
        def open_writer(plan):
            self.writers[name, plan] = Memory(n, self.encoder.dim, plan.shard_rows)
            return self.writers[name, plan]

        job = Job(name, slide or FakeSlide(), grid(n), SIZE, self.encoder, self.plan, open_writer)
        return replace(job, **changes)

    def run(self, jobs, **kwargs):
        embed_slides(jobs, self.on_done, **kwargs)
        return self

    def on_done(self, finished):
        assert finished.writer is None or not finished.writer.closed, "a writer is finished while it is open"
        self.finished[finished.job.name] = finished


@pytest.fixture(params=[("cpu",), ("cpu", "cpu")], ids=["one device", "two devices"])
def stream(request):
    return Stream(encoder_of(Mean(), devices=request.param))


def test_every_slide_gets_its_own_rows(stream):
    stream.run([stream.job(f"s{n}", n) for n in (5, 40, 17)])
    assert set(stream.finished) == {"s5", "s40", "s17"}
    for n in (5, 40, 17):
        np.testing.assert_allclose(stream.writers[f"s{n}", stream.plan].values, truth(n), rtol=1e-5)
        assert stream.finished[f"s{n}"].result.n_computed == n
    assert all(writer.closed for writer in stream.writers.values())


def test_no_value_depends_on_a_slides_neighbours():
    encoder = load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="bf16")
    plan = plan_of(precision="bf16")
    alone, among = Stream(encoder, plan), Stream(encoder, plan)
    alone.run([alone.job("x", 37)])
    among.run([among.job("before", 13), among.job("x", 37), among.job("after", 29)])
    assert np.array_equal(alone.writers["x", plan].values, among.writers["x", plan].values)


def test_the_next_slide_is_opened_while_the_last_is_computed():
    stream, opened = Stream(), threading.Event()

    class WaitsForTheNext(FakeSlide):
        def read(self, *args):
            if not opened.is_set() and self.read_tiles:  # after its first tile, this slide goes on only with the next
                assert opened.wait(30), "the next slide was not opened"
            return super().read(*args)

    def jobs():
        yield stream.job("first", slide=WaitsForTheNext())
        opened.set()
        yield stream.job("second")

    stream.run(jobs())
    assert [f.error for f in stream.finished.values()] == [None, None]


def test_jobs_are_taken_no_more_than_needed_ahead():
    stream, taken, gate = Stream(), [], threading.Event()

    class Gated(FakeSlide):
        def read(self, *args):
            gate.wait(30)
            return super().read(*args)

    def jobs():
        for k in range(6):
            taken.append(k)
            yield stream.job(f"s{k}", 100, slide=Gated())

    thread = threading.Thread(target=stream.run, args=(jobs(),))
    thread.start()
    wait_until(lambda: len(taken) >= 2)
    gate.wait(0.3)
    assert len(taken) == 2, "slides that wait their turn are not opened: memory does not grow with their number"
    gate.set()
    thread.join()
    assert len(stream.finished) == 6


def test_a_failed_slide_harms_no_other(stream):
    stream.run([stream.job("bad", slide=FakeSlide(bad=tuple(range(20)))), stream.job("good")])
    assert stream.finished["bad"].error.reason is Reason.TOO_MANY_BAD_TILES
    assert stream.finished["bad"].result is None
    np.testing.assert_allclose(stream.writers["good", stream.plan].values, truth(40), rtol=1e-5)


def test_a_slide_that_hangs_holds_up_no_other(stream):
    slide = FakeSlide(hangs=3)
    stream.run([stream.job("hangs", slide=slide), stream.job("good")], settings=Settings(workers=1, stall_seconds=0.3))
    assert stream.finished["hangs"].error.reason is Reason.PIXELS_UNREADABLE
    assert stream.finished["good"].error is None
    slide.release.set()


def test_a_writer_that_cannot_be_opened_is_that_slides_failure(stream):
    def locked(plan):
        raise SlideError("somebody else works on it", reason=Reason.LOCKED)

    stream.run([stream.job("locked", open_writer=locked), stream.job("good")])
    assert stream.finished["locked"].error.reason is Reason.LOCKED
    assert stream.finished["locked"].writer is None
    assert stream.finished["good"].error is None


@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu")])
def test_a_plan_that_does_not_hold_is_replaced_for_that_slide_alone(devices):
    stream = Stream(encoder_of(Mean(fits=3), devices=devices))
    stream.run([stream.job("a"), stream.job("b", plan=plan_of(batch_size=2))])
    assert stream.finished["a"].result.plan.batch_size == 2
    assert stream.finished["b"].result.plan.batch_size == 2
    assert [plan.batch_size for name, plan in stream.writers if name == "a"] == [8, 4, 2]
    np.testing.assert_allclose(stream.writers["a", plan_of(batch_size=2)].values, truth(40), rtol=1e-5)
    assert all(writer.closed for writer in stream.writers.values())


def test_an_error_while_a_job_is_made_ends_the_stream_after_the_jobs_before(stream):
    def jobs():
        yield stream.job("first")
        raise SlideError("cannot be opened", reason=Reason.FILE_UNREADABLE)

    with pytest.raises(SlideError, match="cannot be opened"):
        stream.run(jobs())
    assert stream.finished["first"].error is None


def test_an_error_in_the_callers_own_code_closes_everything(stream):
    def on_done(finished):
        raise RuntimeError("the caller's table is gone")

    with pytest.raises(RuntimeError, match="the caller's table is gone"):
        embed_slides([stream.job(f"s{k}", 100) for k in range(4)], on_done)
    assert all(writer.closed for writer in stream.writers.values())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pathassets")]


def test_no_jobs_are_no_work(stream):
    assert stream.run([]).finished == {}
    assert stream.run([lambda: None, lambda: None]).finished == {}


def test_jobs_may_be_functions_that_make_them(stream):
    stream.run([lambda: None, lambda: stream.job("a"), stream.job("b"), lambda: None])
    assert set(stream.finished) == {"a", "b"}


def test_a_slide_is_told_of_when_it_ends_whatever_came_before():
    stream, gate = Stream(), threading.Event()

    class Gated(FakeSlide):
        def read(self, *args):
            assert gate.wait(30), "the second slide was not told of"
            return super().read(*args)

    stream.encoder = encoder_of(Mean(), devices=("cpu", "cpu"))

    def on_done(finished):
        stream.on_done(finished)
        gate.set()

    embed_slides([stream.job("slow", slide=Gated()), stream.job("quick")], on_done)
    assert list(stream.finished) == ["quick", "slow"]
