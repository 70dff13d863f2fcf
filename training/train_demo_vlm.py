"""Trains demo-vlm on procedural tissue and writes its weights: `python -m training.train_demo_vlm`.

About ten minutes on two cores. The same seed, torch version and kind of processor give the same weights. What the
weights reach is measured by `benchmarks/gate_demo_vlm.py`, on seeds that are never used here.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from pathassets.encoders import demo_words
from pathassets.encoders.demo_network import DemoVlm
from pathassets.slides.synthetic import CLASSES
from training.tissue_tiles import Tiles, make_tiles

WEIGHTS = Path(__file__).resolve().parents[1] / "pathassets" / "encoders" / "weights" / "demo_vlm.safetensors"
LOGIT_SCALE = 12.0
CAPTIONS_PER_CLASS = 4
SHARPEN = 4.0
"""Targets are area shares to this power: a tile on a border belongs mostly to what it shows most of."""


class Captions:
    """Random captions: a class's synonym in a template, now and then misspelt."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def draw(self, name: str) -> str:
        """One caption for a class."""
        term = str(self._rng.choice(demo_words.SYNONYMS[name]))
        if self._rng.random() < 0.25:
            term = self._misspell(term)
        if self._rng.random() < 0.4:
            return term
        return str(self._rng.choice(demo_words.TRAINING_TEMPLATES)).format(term)

    def _misspell(self, term: str) -> str:
        """One letter lost, doubled, or swapped with its neighbour."""
        if len(term) < 5:
            return term
        k = int(self._rng.integers(1, len(term) - 1))
        choice = int(self._rng.integers(3))
        middle = ("", term[k] * 2, term[k + 1 : k + 2] + term[k])[choice]
        return term[:k] + middle + term[k + 1 + (choice == 2) :]


def augment(images: Tensor) -> Tensor:
    """Flips, turns and stain gains; uint8 (n, h, w, 3) to floats (n, 3, h, w) in -1..1."""
    light = images.permute(0, 3, 1, 2).float() / 255
    if torch.rand(()) < 0.5:
        light = light.flip(3)
    if torch.rand(()) < 0.5:
        light = light.flip(2)
    if torch.rand(()) < 0.5:
        light = light.transpose(2, 3)
    gain = 1 + 0.1 * torch.randn(len(images), 3, 1, 1, device=images.device)
    common = 1 + 0.15 * torch.randn(len(images), 1, 1, 1, device=images.device)
    return light.clamp(min=1 / 255).pow((gain * common).clamp(0.4, 1.8)) * 2 - 1


def loss_of(model: DemoVlm, images: Tensor, shares: Tensor, captions: Captions) -> Tensor:
    """Cross entropy from tiles to captions (targets: area shares) and from captions to tiles."""
    texts = [captions.draw(name) for name in CLASSES for _ in range(CAPTIONS_PER_CLASS)]
    image = functional.normalize(model.image.from_halved(augment(images)), dim=1)
    text = functional.normalize(model.encode_text(texts), dim=1)
    logits = LOGIT_SCALE * image @ text.T
    # One caption of each class at a time: a tile must choose between classes, not between synonyms.
    by_class = logits.view(len(image), len(CLASSES), CAPTIONS_PER_CLASS)
    toward_text = -(shares.unsqueeze(2) * by_class.log_softmax(1)).sum(1).mean()
    wanted = shares / shares.sum(0, keepdim=True).clamp(min=1e-6)
    present = (shares.sum(0) > 0.3).repeat_interleave(CAPTIONS_PER_CLASS)
    toward_image = -(wanted.repeat_interleave(CAPTIONS_PER_CLASS, 1) * logits.log_softmax(0)).sum(0)
    return toward_text + 0.1 * toward_image[present].mean()


def train(tiles: Tiles, *, steps: int, batch: int, seed: int, device: str) -> DemoVlm:
    """Trains from scratch with AdamW on one cosine.

    Args:
        tiles: What to learn from.
        steps: Number of batches.
        batch: Tiles per batch.
        seed: Seed of initial weights, order, augmentation and captions.
        device: `cpu` or `cuda`.
    """
    torch.manual_seed(seed)
    model = DemoVlm().to(device, memory_format=torch.channels_last)
    images, shares = torch.from_numpy(tiles.images).to(device), torch.from_numpy(tiles.shares**SHARPEN).to(device)
    shares = shares / shares.sum(1, keepdim=True)
    peak = 2.5e-3
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps, pct_start=0.1)
    captions, started, running = Captions(seed), time.monotonic(), 0.0
    order = torch.randperm(len(images))
    for step in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(images))
        chosen, order = order[:batch].to(device), order[batch:]
        loss = loss_of(model, images[chosen], shares[chosen], captions)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        running += float(loss.detach())
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps}  loss {running / 100:.3f}  {time.monotonic() - started:.0f} s", flush=True)
            running = 0.0
    return model.eval().cpu()


def save(model: DemoVlm, path: Path, about: dict[str, str]) -> None:
    """Writes the weights as float16 (hashes and counters keep their type)."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=about)


def main() -> None:
    """Draws the tiles, trains, writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiles", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--cache", type=Path, help="keep the drawn tiles in this .npz, or use those in it")
    options = parser.parse_args()
    started = time.monotonic()
    tiles = _tiles(options.cache, options.tiles, options.seed, options.processes)
    print(f"{len(tiles.images)} tiles after {time.monotonic() - started:.0f} s", flush=True)
    model = train(tiles, steps=options.steps, batch=options.batch, seed=options.seed, device=options.device)
    about = {"name": "demo-vlm", "seed": str(options.seed), "tiles": str(len(tiles.images)),
             "steps": str(options.steps), "batch": str(options.batch), "torch": torch.__version__}  # fmt: skip
    save(model, options.out, about)
    print(f"{options.out}: {options.out.stat().st_size} bytes after {time.monotonic() - started:.0f} s")


def _tiles(cache: Path | None, count: int, seed: int, processes: int) -> Tiles:
    if cache is not None and cache.exists():
        with np.load(cache) as arrays:
            return Tiles(arrays["images"], arrays["shares"])
    tiles = make_tiles(count, seed=seed, processes=processes)
    if cache is not None:
        np.savez(cache, images=tiles.images, shares=tiles.shares)
    return tiles


if __name__ == "__main__":
    main()
