"""One slide: right rows in the right places, whatever the threads do; bad tiles, plans that do not hold, full disks."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from support.streams import SIZE, TILE, FakeSlide, Mean, Memory, encoder_of, grid, plan_of, tile_pixels, truth

from pathassets.core.geometry import TileSize
from pathassets.encoders import load_encoder
from pathassets.engine import EmbedPlan, PlanError, Settings, compute, embed_slide, pipeline
from pathassets.engine.run import Run
from pathassets.errors import EncoderError, Reason, SlideError
from pathassets.recipes import EmbeddingOptions


def embed(n=50, *, slide=None, network=None, encoder=None, writer=None, plan=None, **kwargs):
    plan = plan or plan_of()
    encoder = encoder or encoder_of(network or Mean(), plan.precision)
    writer = writer or Memory(n, encoder.dim, plan.shard_rows)
    return embed_slide(slide or FakeSlide(), grid(n), SIZE, encoder, writer, plan, **kwargs), writer


# What comes out


@pytest.mark.parametrize("n", [1, 7, 8, 16, 50, 100])
def test_every_row_is_its_own_tiles(n):
    result, writer = embed(n)
    np.testing.assert_allclose(writer.values, truth(n), rtol=1e-5)
    assert writer.obs["status"].to_list() == ["ok"] * n
    assert (result.n_tiles, result.n_computed, result.n_bad_tiles) == (n, n, 0)


def test_each_tile_is_read_once_and_in_grid_order():
    slide = FakeSlide()
    embed(40, slide=slide, settings=Settings(workers=1))
    assert slide.read_tiles == list(range(40))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["timm/test_vit", "timm/test_resnet"])
def test_no_value_depends_on_threads_or_streams(model, precision):
    encoder = load_encoder(model, random_weights=True, device="cpu", precision=precision)
    results = [
        embed(70, encoder=encoder, plan=plan_of(precision=precision), settings=Settings(workers=w, streams=s))[1].values
        for w, s in ((1, 1), (3, 2), (2, 4))
    ]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_batches_change_no_more_than_the_last_digits():
    encoder = load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="fp32")
    one, other = (embed(40, encoder=encoder, plan=plan_of(batch_size=b))[1].values for b in (3, 16))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_the_engine_and_the_public_call_agree():
    encoder = load_encoder("timm/test_resnet", random_weights=True, device="cpu", precision="fp32")
    _, writer = embed(20, encoder=encoder)
    np.testing.assert_allclose(
        writer.values, encoder(np.stack([tile_pixels(k) for k in range(20)])), rtol=1e-3, atol=1e-4
    )


def test_tiles_are_read_at_their_size_on_the_slide_and_given_at_the_encoders():
    seen = []

    class Asked(FakeSlide):
        def read(self, x, y, width, height, out_hw):
            seen.append((width, height, out_hw))
            return super().read(x, y, width, height, out_hw)

    size = TileSize((TILE, TILE), (2 * TILE, 3 * TILE), (TILE, TILE), 0.5, 1.0)
    encoder = encoder_of(Mean())
    embed_slide(Asked(), grid(4), size, encoder, Memory(4, 3, 16), plan_of())
    assert set(seen) == {(3 * TILE, 2 * TILE, (TILE, TILE))}


def test_the_time_of_every_stage_and_the_agreement_are_told():
    result, _ = embed(50, plan=plan_of(precision="bf16"))
    assert set(result.timings) == {"decode", "transfer", "forward", "write"}
    assert min(result.timings["decode"], result.timings["forward"], result.timings["write"]) > 0
    assert result.agreement is not None
    assert result.agreement.cosine > 0.999
    assert result.agreement.n_tiles == pipeline.AGREEMENT_TILES
    assert (result.precision, result.device) == ("bf16", "cpu")


def test_progress_is_told_in_the_callers_thread_and_ends_at_all():
    import threading

    told, threads = [], set()

    def progress(done, total):
        told.append((done, total))
        threads.add(threading.current_thread())

    embed(100, progress=progress)
    assert told[-1] == (100, 100)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert threads == {threading.main_thread()}


def test_what_is_measured_on_the_pixels_stays_with_the_shard():
    _, writer = embed(
        20, slide=FakeSlide(bad=(5,)), max_bad_tiles=1, measure=lambda t: {"brightness": t.mean((1, 2, 3))}
    )
    expected = truth(20).mean(1)
    expected[5] = np.nan
    np.testing.assert_allclose(writer.obs["brightness"].to_numpy(), expected, rtol=1e-5)


def test_torchs_own_threads_are_as_before():
    before = torch.get_num_threads()
    embed(10)
    assert torch.get_num_threads() == before


# Resume


def test_only_missing_shards_are_computed():
    _, whole = embed(50)
    writer, slide = Memory(50, 3, 16), FakeSlide()
    writer.shards, writer.notes = {0: whole.shards[0], 2: whole.shards[2]}, {0: whole.notes[0], 2: whole.notes[2]}
    result, _ = embed(50, slide=slide, writer=writer)
    assert sorted(slide.read_tiles) == [*range(16, 32), 48, 49]
    assert result.n_computed == 18
    assert np.array_equal(writer.values, whole.values)


def test_a_resumed_slide_is_the_same_to_the_last_bit():
    """Batches start anew in each shard, so what a shard holds does not depend on which shards are computed with it."""
    encoder = load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="bf16")
    plan = plan_of(precision="bf16", batch_size=6)
    _, whole = embed(50, encoder=encoder, plan=plan)
    writer = Memory(50, encoder.dim, 16)
    writer.shards, writer.notes = {1: whole.shards[1]}, {1: whole.notes[1]}
    embed(50, encoder=encoder, plan=plan, writer=writer)
    assert np.array_equal(writer.values, whole.values)


def test_a_slide_that_is_all_there_costs_one_comparison():
    _, whole = embed(50)
    slide = FakeSlide()
    result, _ = embed(50, slide=slide, writer=whole, plan=plan_of(precision="bf16"))
    assert result.n_computed == 0
    assert slide.read_tiles == list(range(pipeline.AGREEMENT_TILES))
    assert result.agreement is not None


def test_a_slide_without_tiles_is_done():
    result, writer = embed(0)
    assert (result.n_tiles, result.n_computed, result.agreement) == (0, 0, None)
    assert writer.shards == {}


# Bad tiles


def test_a_bad_tile_is_marked_and_its_neighbours_do_not_notice(caplog):
    _, whole = embed(50)
    with caplog.at_level(logging.WARNING):
        result, writer = embed(50, slide=FakeSlide(bad=(9, 30)))
    good = np.delete(np.arange(50), [9, 30])
    assert np.array_equal(writer.values[good], whole.values[good])
    assert np.isnan(writer.values[[9, 30]]).all()
    assert result.n_bad_tiles == 2
    assert writer.obs["status"].to_list() == ["unreadable" if k in (9, 30) else "ok" for k in range(50)]
    assert writer.obs["reason"][9] == "pixels_unreadable"
    assert writer.obs["reason"][8] is None
    assert "tile at x=288, y=0 cannot be read" in caplog.text


def test_past_the_set_share_the_slide_fails_and_keeps_what_is_done():
    bad = (40, 41, 42, 43)
    with pytest.raises(SlideError, match="more than 5% of 50 tiles cannot be read") as caught:
        embed(50, slide=FakeSlide(bad=bad), settings=Settings(workers=1))
    assert caught.value.reason is Reason.TOO_MANY_BAD_TILES
    writer = Memory(50, 3, 16)
    with pytest.raises(SlideError):
        embed(50, slide=FakeSlide(bad=bad, seconds=0.01), writer=writer, settings=Settings(workers=1))
    assert 0 in writer.shards
    result, _ = embed(50, slide=FakeSlide(), writer=writer)
    assert result.n_bad_tiles == 0
    np.testing.assert_allclose(writer.values, truth(50), rtol=1e-5)


def test_bad_tiles_of_earlier_runs_count():
    writer = Memory(50, 3, 16)
    embed(50, slide=FakeSlide(bad=(5, 7)), writer=writer)
    writer.shards.pop(1)
    writer.notes.pop(1)
    result, _ = embed(50, slide=FakeSlide(), writer=writer)
    assert (result.n_computed, result.n_bad_tiles) == (16, 2)
    writer.shards.pop(3)
    writer.notes.pop(3)
    with pytest.raises(SlideError, match="more than 5% of 50 tiles cannot be read"):
        embed(50, slide=FakeSlide(bad=(49,)), writer=writer)


def test_a_slide_that_is_known_to_be_too_bad_is_not_read_again():
    writer, slide = Memory(50, 3, 16), FakeSlide()
    embed(50, slide=FakeSlide(bad=range(5)), writer=writer, max_bad_tiles=1)
    with pytest.raises(SlideError, match="more than 5% of 50 tiles cannot be read"):
        embed(50, slide=slide, writer=writer)
    assert slide.read_tiles == []


def test_an_error_that_is_no_bad_tile_fails_the_slide():
    class Broken(FakeSlide):
        def read(self, x, y, width, height, out_hw):
            raise ZeroDivisionError("a mistake in the reader")

    with pytest.raises(ZeroDivisionError, match="a mistake in the reader"):
        embed(50, slide=Broken())


def test_a_slide_that_hangs_is_given_up():
    slide = FakeSlide(hangs=20)
    with pytest.raises(SlideError, match=r"has taken more than 0.3 s") as caught:
        embed(50, slide=slide, settings=Settings(workers=2, stall_seconds=0.3))
    assert caught.value.reason is Reason.PIXELS_UNREADABLE
    slide.release.set()


# Plans that do not hold


def test_out_of_memory_asks_for_half_the_batch():
    with pytest.raises(PlanError) as caught:
        embed(50, network=Mean(fits=5))
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    assert caught.value.next_plan == plan_of(batch_size=4)
    result, writer = embed(50, network=Mean(fits=5), plan=caught.value.next_plan)
    np.testing.assert_allclose(writer.values, truth(50), rtol=1e-5)
    assert result.plan.batch_size == 4


def test_a_single_tile_that_does_not_fit_is_the_end():
    with pytest.raises(EncoderError) as caught:
        embed(50, network=Mean(fits=0), plan=plan_of(batch_size=1))
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    assert not isinstance(caught.value, PlanError)


def test_values_that_are_not_finite_ask_for_fp32():
    network, plan = Mean(nan_below_fp32=True), plan_of(precision="bf16")
    with pytest.raises(PlanError) as caught:
        embed(50, network=network, plan=plan)
    assert caught.value.reason is Reason.NON_FINITE
    assert caught.value.next_plan == plan_of(precision="fp32")
    _, writer = embed(50, encoder=encoder_of(network, "bf16"), plan=caught.value.next_plan)
    np.testing.assert_allclose(writer.values, truth(50), rtol=1e-5)


def test_values_that_are_not_finite_in_fp32_either_fail_the_slide():
    with pytest.raises(SlideError, match="not finite in fp32") as caught:
        embed(50, network=Mean(always_nan=True))
    assert caught.value.reason is Reason.NON_FINITE


def test_values_that_float16_cannot_hold_ask_for_float32():
    with pytest.raises(PlanError, match="more than float16 holds") as caught:
        embed(50, network=Mean(factor=1000), plan=plan_of(dtype="float16"))
    assert caught.value.next_plan == plan_of(dtype="float32")


def test_a_bad_tile_is_not_taken_for_a_value_that_is_not_finite():
    class NanOnWhite(Mean):
        def forward(self, images):
            out = super().forward(images)
            out[(images == images.max()).all(dim=(1, 2, 3))] = float("nan")
            return out

    result, _ = embed(50, network=NanOnWhite(), slide=FakeSlide(bad=(4,)))
    assert result.n_bad_tiles == 1


def test_an_encoder_that_fails_is_named():
    network = Mean()
    network.error = RuntimeError("a kernel is missing")
    with pytest.raises(EncoderError, match="mean failed on cpu: RuntimeError: a kernel is missing") as caught:
        embed(50, network=network)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_full_disk_reaches_the_caller_and_keeps_what_is_done():
    writer = Memory(50, 3, 16, fail_at=1)
    with pytest.raises(OSError, match="No space left"):
        embed(50, writer=writer)
    writer.fail_at = None
    embed(50, writer=writer)
    np.testing.assert_allclose(writer.values, truth(50), rtol=1e-5)


def test_an_interrupt_ends_the_threads_and_is_passed_on():
    import threading

    def progress(done, total):
        if done:
            raise KeyboardInterrupt

    writer = Memory(400, 3, 16)
    with pytest.raises(KeyboardInterrupt):
        embed(400, slide=FakeSlide(seconds=0.005), writer=writer, progress=progress)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pathassets")]


# Plans


def test_the_plan_follows_options_and_device():
    encoder = encoder_of(Mean(), "bf16")
    plan = EmbedPlan.of(EmbeddingOptions(batch_size=64, shard_rows=32), encoder)
    assert plan == EmbedPlan(precision="bf16", dtype="float16", batch_size=16, shard_rows=32, device="cpu")
    encoder.device = "cuda:1"
    assert EmbedPlan.of(EmbeddingOptions(batch_size=64, shard_rows=32), encoder).batch_size == 32
    assert EmbedPlan.of(EmbeddingOptions(batch_size=64), encoder).device == "cuda"


@pytest.mark.parametrize(
    "change", [{"precision": "bf16"}, {"dtype": "float16"}, {"batch_size": 4}, {"shard_rows": 32}, {"device": "cuda"}]
)
def test_whatever_may_change_a_digit_is_in_the_digest(change):
    assert plan_of(**change).digest_parts() != plan_of().digest_parts()


def test_batches_start_anew_in_each_shard():
    assert plan_of(batch_size=6).batches(slice(16, 32)) == [slice(16, 22), slice(22, 28), slice(28, 32)]


class LateDevice:
    """Answers a batch later, as a CUDA device does, and may tell of a failure only then."""

    depth = 1

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at, self.submitted, self.most_pending, self.pending = fails_at, 0, 0, 0

    def submit(self, encoder, tiles):
        number, self.submitted, self.pending = self.submitted, self.submitted + 1, self.pending + 1
        self.most_pending = max(self.most_pending, self.pending)

        def collect():
            self.pending -= 1
            if number == self.fails_at:
                raise torch.OutOfMemoryError("told late")
            return encoder.encode(torch.from_numpy(tiles)).numpy()

        return compute.Pending(collect, {"forward": 1.0})


def test_a_device_that_answers_later_is_given_the_next_batch_meanwhile(monkeypatch):
    device = LateDevice()
    monkeypatch.setattr(pipeline, "device_for", lambda name: device)
    _, writer = embed(50, settings=Settings(streams=1))
    np.testing.assert_allclose(writer.values, truth(50), rtol=1e-5)
    assert device.pending == 0
    assert device.most_pending <= 2


def test_a_failure_that_is_told_late_is_still_this_slides(monkeypatch):
    monkeypatch.setattr(pipeline, "device_for", lambda name: LateDevice(fails_at=2))
    with pytest.raises(PlanError) as caught:
        embed(50, settings=Settings(streams=1))
    assert caught.value.next_plan.batch_size == 4


def test_a_mistake_in_the_engine_ends_with_an_error_and_not_with_waiting(monkeypatch):
    def broken(self, batch, values):
        raise ZeroDivisionError("a mistake in the engine")

    monkeypatch.setattr(Run, "put", broken)
    monkeypatch.setattr(pipeline, "STOP_SECONDS", 0.1)
    with pytest.raises(ZeroDivisionError, match="a mistake in the engine"):
        embed(50)
