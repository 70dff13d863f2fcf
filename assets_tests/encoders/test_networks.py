"""Copies of a network: one for each place and precision, compiled where the machine can."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from pathassets.encoders.card import EncoderCard
from pathassets.encoders.encoder import Encoder
from pathassets.encoders.networks import CompileError, Networks
from pathassets.errors import EncoderError, Reason


class Tiny(nn.Module):
    """A network of which copies are counted."""

    copies = 0

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4)

    def forward(self, images):
        return self.layer(images.mean((2, 3))).tanh()

    def __deepcopy__(self, memo):
        type(self).copies += 1
        other = Tiny()
        other.load_state_dict(self.state_dict())
        return other


def encoder(network=None, **kwargs):
    card = EncoderCard(name="tiny", dim=4, input_px=8, description="")
    fields = {"device": "cpu", "precision": "fp32", "weights_sha256": "random-tiny", **kwargs}
    return Encoder(card, network or Tiny(), **fields)


def tiles(n):
    return np.random.default_rng(n).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def test_each_place_and_precision_has_one_copy_however_often_it_is_asked_for():
    first = encoder()
    Tiny.copies = 0
    for _ in range(3):
        first.at("bf16")
        first.at("fp32", "cpu:1").at("bf16", "cpu:1")
        first.at("bf16").at("fp32")
    assert Tiny.copies == 3, "bf16 on the first, both on the second; fp32 on the CPU is the network itself"


def test_a_copy_elsewhere_gives_the_same_numbers_and_keeps_its_card():
    here = encoder(devices=("cpu", "cpu:1"))
    there = here.at("fp32", "cpu:1")
    assert (there.device, there.devices, there.card) == ("cpu:1", here.devices, here.card)
    assert here.device == "cpu"
    np.testing.assert_array_equal(there(tiles(3)), here(tiles(3)))


def test_threads_that_ask_at_once_get_one_copy():
    networks, found = Networks(Tiny()), []
    Tiny.copies = 0
    threads = [threading.Thread(target=lambda: found.append(networks.forward("cpu", "bf16", None))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), Tiny.copies) == (8, 1)


def test_weights_that_do_not_fit_say_so():
    class Huge(Tiny):
        def __deepcopy__(self, memo):
            raise torch.OutOfMemoryError("tried to allocate 1 TiB")

    with pytest.raises(EncoderError, match="does not fit in the memory of cpu:1") as caught:
        encoder(Huge()).at("fp32", "cpu:1")
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def test_where_a_second_copy_does_not_fit_the_cpu_has_the_reference(monkeypatch):
    found = encoder(device="cpu:1", precision="bf16")
    place = Networks._placed

    def full(self, device, precision):
        if device == "cpu:1":
            raise EncoderError("no room", reason=Reason.OUT_OF_MEMORY)
        return place(self, device, precision)

    monkeypatch.setattr(Networks, "_placed", full)
    assert found.agreement(tiles(4)).cosine > 0.99


# Compiling. A stand-in for torch.compile shows what is asked of it; the real one runs in the slow tier.


class Compiler:
    """Stands in for `torch.compile`: notes the shapes it is called with, and fails if told to."""

    def __init__(self, fails=None):
        self.fails, self.shapes, self.asked = fails, [], []

    def __call__(self, run, **how):
        self.asked.append(how)

        def compiled(inputs):
            self.shapes.append((tuple(inputs.shape), inputs.stride()))
            if self.fails is not None:
                raise self.fails
            return run(inputs)

        return compiled


def test_a_compiled_network_sees_one_shape_only_and_gives_the_same_rows(monkeypatch):
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", compiler)
    eager = encoder()
    compiled = eager.at("fp32", compiled_for=5)
    for n in (1, 2, 5, 7):
        np.testing.assert_allclose(compiled(tiles(n)), eager(tiles(n)), rtol=1e-6)
    assert len(set(compiler.shapes)) == 1
    assert compiler.shapes[0][0] == (5, 3, 8, 8)
    assert compiler.asked == [{"fullgraph": True, "dynamic": False}], "all of the network or nothing, and once"
    assert eager.at("fp32", compiled_for=5)._forward is compiled._forward


def test_compiled_numbers_are_compared_with_fp32_whatever_the_precision(monkeypatch):
    class Wrong(Compiler):
        def __call__(self, run, **how):
            return lambda inputs: -run(inputs)

    monkeypatch.setattr(torch, "compile", Wrong())
    assert encoder().at("fp32", compiled_for=4).agreement(tiles(4)).cosine == pytest.approx(-1)


def test_what_cannot_be_compiled_says_why_at_once_and_is_not_tried_again(monkeypatch):
    compiler = Compiler(fails=RuntimeError("No working C++ compiler found"))
    monkeypatch.setattr(torch, "compile", compiler)
    found = encoder().at("fp32", compiled_for=4)
    for _ in range(3):
        with pytest.raises(CompileError, match="No working C\\+\\+ compiler") as caught:
            found(tiles(2))
    assert len(compiler.shapes) == 1
    assert "compile = false" in caught.value.remedy


def test_no_memory_is_not_a_compiler_that_fails(monkeypatch):
    compiler = Compiler(fails=torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setattr(torch, "compile", compiler)
    with pytest.raises(torch.OutOfMemoryError):
        encoder().at("fp32", compiled_for=4)(tiles(2))


def test_several_threads_compile_once(monkeypatch):
    first, slow = threading.Event(), threading.Event()

    class Slow(Compiler):
        def __call__(self, run, **how):
            def compiled(inputs):
                self.shapes.append(inputs.shape)
                if not first.is_set():
                    first.set()
                    slow.wait(30)
                return run(inputs)

            return compiled

    compiler = Slow()
    monkeypatch.setattr(torch, "compile", compiler)
    found = encoder().at("fp32", compiled_for=4)
    results = []
    threads = [threading.Thread(target=lambda: results.append(found(tiles(3)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    first.wait(30)
    assert len(compiler.shapes) == 1, "the others wait for the first"
    slow.set()
    for thread in threads:
        thread.join(30)
    assert len(results) == 4
