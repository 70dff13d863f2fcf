"""The engine on a CUDA device; skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.streams import SIZE, FakeSlide, Mean, Memory, grid, plan_of, truth

from pathassets.core.geometry import TileSize
from pathassets.encoders import check_device, load_encoder
from pathassets.encoders.card import EncoderCard
from pathassets.encoders.encoder import Encoder
from pathassets.engine import EmbedPlan, Job, PlanError, embed_slide, embed_slides
from pathassets.errors import Reason
from pathassets.recipes import EmbeddingOptions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


def embed(encoder, plan, n=100, slide=None):
    writer = Memory(n, encoder.dim, plan.shard_rows)
    return embed_slide(slide or FakeSlide(), grid(n), SIZE, encoder, writer, plan), writer


def test_auto_takes_the_gpu_and_bf16():
    encoder = load_encoder("timm/test_vit", random_weights=True)
    assert (encoder.device, encoder.precision) == ("cuda:0", "bf16")
    assert "cuda:0" in check_device("auto")
    assert EmbedPlan.of(EmbeddingOptions(), encoder).batch_size == 64


@pytest.mark.parametrize("model", ["timm/test_vit", "timm/resnet18"])
def test_the_gpu_agrees_with_the_cpu(model):
    gpu, cpu = (load_encoder(model, random_weights=True, device=d, precision="fp32") for d in ("cuda", "cpu"))
    plan = plan_of(device="cuda", batch_size=16)
    _, on_gpu = embed(gpu, plan)
    _, on_cpu = embed(cpu, plan_of(batch_size=16))
    scale = np.abs(on_cpu.values).max()
    np.testing.assert_allclose(on_gpu.values / scale, on_cpu.values / scale, atol=1e-4)


@pytest.mark.parametrize("model", ["timm/test_vit", "timm/resnet18"])
def test_two_runs_are_the_same_to_the_last_bit_and_bf16_agrees(model):
    encoder = load_encoder(model, random_weights=True)
    plan = plan_of(precision="bf16", device="cuda", batch_size=16, shard_rows=48)
    (one, first), (_, second) = embed(encoder, plan), embed(encoder, plan)
    assert np.array_equal(first.values, second.values)
    assert one.agreement is not None
    assert one.agreement.cosine > 0.99
    assert one.timings["forward"] > 0
    assert one.timings["transfer"] > 0


def test_no_value_depends_on_what_is_in_flight():
    """Buffers are used again while others are computed: a row must never be another tile's."""
    std = 1 / 255
    card = EncoderCard(name="mean", dim=3, input_px=32, description="", mean=(0, 0, 0), std=(std, std, std))
    encoder = Encoder(card, Mean(), device="cuda:0", precision="fp32", weights_sha256="random-mean")
    _, writer = embed(encoder, plan_of(device="cuda", batch_size=4), n=400, slide=FakeSlide(bad=(17,)))
    expected = truth(400)
    expected[17] = np.nan
    np.testing.assert_allclose(writer.values, expected, rtol=1e-5)


class Hungry(torch.nn.Module):
    """Wants more memory than there is, unless the batch is small."""

    def forward(self, images):
        if len(images) > 5:
            torch.empty(2**50, dtype=torch.uint8, device=images.device)
        return images.float().mean((2, 3))


def test_out_of_memory_halves_the_batch():
    card = EncoderCard(name="hungry", dim=3, input_px=32, description="")
    encoder = Encoder(card, Hungry(), device="cuda:0", precision="fp32", weights_sha256="random-hungry")
    plan = plan_of(device="cuda", batch_size=16)
    with pytest.raises(PlanError) as caught:
        embed(encoder, plan)
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    ended = []
    writers = []

    def open_writer(plan):
        writers.append(Memory(50, 3, plan.shard_rows))
        return writers[-1]

    embed_slides([Job("s", FakeSlide(), grid(50), SIZE, encoder, plan, open_writer)], ended.append)
    assert ended[0].result.plan.batch_size == 4
    assert len(writers) == 3


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is only one CUDA device here")
def test_two_gpus_share_the_slides_and_give_the_numbers_of_one():
    values, devices = {}, {}
    for names in ("cuda:0", "cuda:all"):
        encoder = load_encoder("timm/test_vit", random_weights=True, device=names)
        plan = EmbedPlan.of(EmbeddingOptions(dtype="float32"), encoder)
        assert plan.device == "cuda", "no digest depends on which of them it was"
        writers, ended = {}, []

        def job(name, encoder=encoder, plan=plan, writers=writers):
            writers[name] = Memory(200, encoder.dim, plan.shard_rows)
            return Job(name, FakeSlide(), grid(200), SIZE, encoder, plan, lambda _: writers[name])

        embed_slides([job(f"s{k}") for k in range(8)], ended.append)
        assert [f.error for f in ended] == [None] * 8
        values[names] = [writers[f"s{k}"].values for k in range(8)]
        devices[names] = {f.result.device for f in ended}
    assert devices["cuda:0"] == {"cuda:0"}
    assert {"cuda:0", "cuda:1"} <= devices["cuda:all"]
    assert np.array_equal(values["cuda:0"], values["cuda:all"])


@pytest.mark.e2e
def test_compiled_embeddings_agree_and_are_the_same_twice():
    encoder = load_encoder("timm/test_vit", random_weights=True)
    plan = plan_of(precision="bf16", device="cuda", batch_size=16, compile=True)
    (one, first), (_, second) = embed(encoder, plan), embed(encoder, plan)
    assert one.plan.compile
    assert one.agreement is not None
    assert one.agreement.cosine > 0.99
    assert np.array_equal(first.values, second.values)


def test_tiles_of_another_size_are_resized_on_the_device():
    gpu, cpu = (
        load_encoder("timm/test_resnet", random_weights=True, device=d, precision="fp32") for d in ("cuda", "cpu")
    )
    size = TileSize((96, 96), (96, 96), (96, 96), 0.5, 1.0)
    writers = [Memory(20, gpu.dim, 16) for _ in range(2)]
    for encoder, writer, device in zip((gpu, cpu), writers, ("cuda", "cpu"), strict=True):
        embed_slide(FakeSlide(), grid(20), size, encoder, writer, plan_of(device=device))
    scale = np.abs(writers[1].values).max()
    np.testing.assert_allclose(writers[0].values / scale, writers[1].values / scale, atol=2e-3)
