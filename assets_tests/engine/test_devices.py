"""Several devices as one: slides are shared out, numbers stay the same, one device's trouble is not the others'."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support.streams import SIZE, FakeSlide, Mean, Memory, encoder_of, grid, plan_of, truth

from pathassets.encoders import load_encoder
from pathassets.engine import Job, Settings, embed_slides, pipeline
from pathassets.engine.compute import HostDevice
from pathassets.engine.run import Run
from pathassets.engine.stream import shares
from pathassets.errors import Reason

TWO = ("cpu:0", "cpu:1")  # torch takes them for the CPU; the engine for two devices


def run(encoder, names, plan=None, slide_of=lambda name: FakeSlide(), **kwargs):
    """Embeds slides of 40 tiles; gives what became of each, and its values."""
    plan, writers, finished = plan or plan_of(), {}, {}

    def job(name):
        writers[name] = Memory(40, encoder.dim, plan.shard_rows)
        return Job(name, slide_of(name), grid(40), SIZE, encoder, plan, lambda _: writers[name])

    embed_slides([lambda name=name: job(name) for name in names], lambda f: finished.update({f.job.name: f}), **kwargs)
    return finished, writers


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_engines_give_the_numbers_of_one_to_the_last_bit(precision):
    names, values = [f"s{k}" for k in range(5)], {}
    for devices in ("cpu", "cpu,cpu", "cpu,cpu,cpu"):
        encoder = load_encoder("timm/test_vit", random_weights=True, device=devices, precision=precision)
        _, writers = run(encoder, names, plan_of(precision=precision))
        values[devices] = [writers[name].values for name in names]
    assert np.array_equal(values["cpu"], values["cpu,cpu"])
    assert np.array_equal(values["cpu"], values["cpu,cpu,cpu"])


def test_two_devices_work_on_two_slides_at_the_same_time():
    both = threading.Barrier(2)

    class Meets(FakeSlide):
        def read(self, *args):
            if not self.read_tiles:
                both.wait(30)
            return super().read(*args)

    finished, writers = run(encoder_of(Mean(), devices=TWO), "ab", slide_of=lambda name: Meets())
    assert {f.result.device for f in finished.values()} == set(TWO)
    np.testing.assert_allclose(writers["a"].values, truth(40), rtol=1e-5)


def test_slides_are_made_ready_side_by_side():
    """The first is made before there are threads; the next two must be under way together."""
    both = threading.Barrier(2)

    def slide_of(name):
        if name != "first":
            both.wait(30)
        return FakeSlide()

    finished, _ = run(encoder_of(Mean(), devices=TWO), ["first", "second", "third"], slide_of=slide_of)
    assert [f.error for f in finished.values()] == [None] * 3


class Broken:
    """A device on which everything fails."""

    depth = 0

    def submit(self, encoder, tiles):
        raise RuntimeError("unspecified launch failure")


def test_a_slide_that_fails_on_a_device_fails_alone_and_a_broken_device_does_not_go_through_them_all(monkeypatch):
    monkeypatch.setattr(pipeline, "device_for", lambda name: Broken() if name == "cpu:1" else HostDevice())
    names = [f"s{k}" for k in range(24)]
    finished, writers = run(encoder_of(Mean(), devices=TWO), names, slide_of=lambda name: FakeSlide(seconds=0.002))
    failed = [name for name in names if finished[name].error is not None]
    assert 1 <= len(failed) <= 6, "those that were on their way to it when it was given up fail too"
    for name in names:
        if name in failed:
            assert finished[name].error.reason is Reason.ENCODER_FAILED
            assert "on cpu:1" in finished[name].error.message
        else:
            np.testing.assert_allclose(writers[name].values, truth(40), rtol=1e-5)


def test_an_encoder_that_fails_everywhere_fails_every_slide():
    network = Mean()
    network.error = RuntimeError("no such kernel")
    finished, _ = run(encoder_of(network, devices=TWO), [f"s{k}" for k in range(9)])
    assert [f.error.reason for f in finished.values()] == [Reason.ENCODER_FAILED] * 9


@pytest.mark.parametrize("where", ["next_batch", "put", "written"], ids=["reading", "computing", "writing"])
def test_a_mistake_in_one_engine_ends_all(monkeypatch, where):
    right = getattr(Run, where)

    def broken(self, *args):
        if self.encoder.device == "cpu:1":
            raise ZeroDivisionError("a mistake in the engine")
        return right(self, *args)

    monkeypatch.setattr(Run, where, broken)
    with pytest.raises(ZeroDivisionError):
        run(encoder_of(Mean(), devices=TWO), [f"s{k}" for k in range(6)])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pathassets")]


def test_weights_that_do_not_fit_on_a_device_fail_its_slides_with_a_remedy(monkeypatch):
    import torch

    class Huge(Mean):
        def __deepcopy__(self, memo):
            raise torch.OutOfMemoryError("tried to allocate 1 TiB")

    encoder = encoder_of(Huge())
    encoder.devices = ("cpu", "cpu:1")
    finished, _ = run(encoder, [f"s{k}" for k in range(8)], slide_of=lambda name: FakeSlide(seconds=0.002))
    reasons = [f.error.reason for f in finished.values() if f.error]
    assert set(reasons) == {Reason.OUT_OF_MEMORY}
    assert len(reasons) <= 3


@pytest.mark.parametrize(
    ("cores", "devices", "workers", "expected"),
    [
        (8, ("cpu",), 0, [(8, 8)]),
        (8, ("cpu", "cpu"), 0, [(4, 4), (4, 4)]),
        (5, ("cpu", "cpu"), 0, [(3, 3), (2, 2)]),
        (1, ("cpu", "cpu"), 0, [(1, 1), (1, 1)]),
        (64, ("cuda:0", "cuda:1", "cuda:2"), 0, [(22, 1), (21, 1), (21, 1)]),
        (64, ("cuda:0", "cuda:1"), 10, [(5, 1), (5, 1)]),
    ],
)
def test_cores_are_shared_out(monkeypatch, cores, devices, workers, expected):
    monkeypatch.setattr("pathassets.engine.stream.usable_cores", lambda: cores)
    found = [(share.workers, share.streams) for share in shares(Settings(workers=workers), devices)]
    assert found == expected
