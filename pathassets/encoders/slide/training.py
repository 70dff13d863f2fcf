"""Training an ABMIL on slides' labels, and telling honestly how good it is.

Belongs here: folds, the training loop, held-out numbers, the file that is written. Does not belong: slides, tables.

Nothing is chosen by looking at held-out slides: length of training and all other settings are fixed beforehand, and the network that
is written is trained on all slides in the same way. No training sees a patient that it is judged by, neither in its weights nor in
the means and spreads that it standardizes channels with.

The network is that of Ilse et al. 2018 (arXiv:1802.04712). One slide a step, weight decay, dropout and the mean learning rate are
about those of CLAM (Lu et al. 2021, 10.1038/s41551-020-00682-w), without its choice of the best epoch, for which small studies have
no slides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pathassets.encoders.slide.attention import Abmil
from pathassets.encoders.slide.zoo import METADATA, TRAINED

DIM = 256
EPOCHS = 20
# Falls to zero along a cosine, so that its mean is half of it.
LEARNING_RATE = 5e-4
WEIGHT_DECAY = 1e-5
# Tiles of a slide in one step of training: a part at a time, another one in each epoch, is augmentation as well.
TILES_PER_STEP = 2048
# Fewer patients of a class than folds cannot be held out; with fewer than this the interval is told to be wide.
FEW = 20
BOOTSTRAPS = 1000
# A channel that spreads less than this part of the widest one is the same in all tiles but for rounding.
CONSTANT = 1e-6


@dataclass(frozen=True)
class Bag:
    """A slide.

    Attributes:
        tiles: Embeddings (n, dim), n of at least 1.
        label: Number of its class.
        patient: Whose it is; slides of one patient are held out together.
    """

    tiles: NDArray[np.floating]
    label: int
    patient: str


@dataclass(frozen=True)
class Verdict:
    """How good a training is on slides that it has not seen.

    Attributes:
        auroc: Area under the ROC curve of all held-out slides; of more than two classes, the mean over one against the rest.
        low: Lower end of its 95 % interval, from patients drawn anew.
        high: Upper end.
        folds: The same for each fold alone; None where a fold lacks a class.
        probabilities: Held-out probability of each class for each slide (n, classes).
    """

    auroc: float
    low: float
    high: float
    folds: tuple[float | None, ...]
    probabilities: NDArray[np.float32]


def patients_per_class(bags: Sequence[Bag], classes: int) -> list[int]:
    """How many patients have a slide of each class."""
    return [len({bag.patient for bag in bags if bag.label == label}) for label in range(classes)]


def cross_validate(
    bags: Sequence[Bag],
    classes: int,
    *,
    folds: int,
    seed: int,
    epochs: int = EPOCHS,
    told: Callable[[int], None] | None = None,
) -> Verdict:
    """Trains on all folds but one and looks at that one, for each.

    Args:
        bags: The slides; at least `folds` patients of each class.
        classes: How many labels there are.
        folds: Parts that patients are divided into, labels evenly.
        seed: For parts, first weights and the order of slides.
        epochs: How often each slide is seen.
        told: Is called with each fold's number when it is done.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels = np.array([bag.label for bag in bags])
    patients = np.array([bag.patient for bag in bags])
    found = np.zeros((len(bags), classes), np.float32)
    scores: list[float | None] = []
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, patients)
    for number, (seen, unseen) in enumerate(parts):
        network = train([bags[i] for i in seen], classes, seed=seed + number, epochs=epochs)
        found[unseen] = np.stack([probabilities(network, bags[i].tiles) for i in unseen])
        scores.append(auroc(labels[unseen], found[unseen]))
        if told is not None:
            told(number)
    overall = auroc(labels, found)
    assert overall is not None
    low, high = _interval(labels, found, patients, seed)
    return Verdict(overall, low, high, tuple(scores), found)


def train(bags: Sequence[Bag], classes: int, *, seed: int, epochs: int = EPOCHS) -> Abmil:
    """An ABMIL of these slides: one slide a step, rare classes weighted up, the learning rate falling to zero; the same for a seed."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Abmil(bags[0].tiles.shape[1], DIM, classes).train()
        _standardize(network, bags)
        counts = np.bincount([bag.label for bag in bags], minlength=classes).clip(1)
        loss = nn.CrossEntropyLoss(torch.tensor(len(bags) / (classes * counts), dtype=torch.float32))
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(bags))
        for _ in range(epochs):
            for i in rng.permutation(len(bags)):
                optimizer.zero_grad()
                error = loss(network.logits(_some(bags[i].tiles, rng))[None], torch.tensor([bags[i].label]))
                error.backward()
                optimizer.step()
                schedule.step()
    return network.eval()


def _standardize(network: Abmil, bags: Sequence[Bag]) -> None:
    """Gives a network the mean and spread of each channel over these slides, each slide counting the same."""
    dim = bags[0].tiles.shape[1]
    mean = sum((bag.tiles.mean(0, np.float64) for bag in bags), np.zeros(dim)) / len(bags)
    spreads = (np.square(bag.tiles - mean).mean(0) for bag in bags)
    std = np.sqrt(sum(spreads, np.zeros(dim)) / len(bags))
    std[std <= CONSTANT * std.max()] = 1
    network.standardize.mean.copy_(torch.from_numpy(mean))
    network.standardize.std.copy_(torch.from_numpy(std))


def _some(tiles: NDArray[np.floating], rng: np.random.Generator) -> torch.Tensor:
    if len(tiles) > TILES_PER_STEP:
        tiles = tiles[np.sort(rng.choice(len(tiles), TILES_PER_STEP, replace=False))]
    return torch.from_numpy(tiles.astype(np.float32))


def probabilities(network: Abmil, tiles: NDArray[np.floating]) -> NDArray[np.float32]:
    """How likely each class is (classes,), from all tiles of a slide."""
    with torch.inference_mode():
        return network.logits(torch.from_numpy(np.ascontiguousarray(tiles))).softmax(0).numpy()


def auroc(labels: NDArray[np.integer], found: NDArray[np.floating]) -> float | None:
    """Area under the ROC curve, of more than two classes the mean over one against the rest; None where a class is not there.

    From ranks (Mann and Whitney), ties counted half.
    """
    from scipy.stats import rankdata

    n, classes = found.shape
    if len(np.unique(labels)) < classes:
        return None
    areas = []
    for label in range(classes):
        own = labels == label
        n_own = int(own.sum())
        ranks = float(rankdata(found[:, label])[own].sum())
        areas.append((ranks - n_own * (n_own + 1) / 2) / (n_own * (n - n_own)))
    return areas[1] if classes == 2 else float(np.mean(areas))


def _interval(
    labels: NDArray[np.integer], found: NDArray[np.floating], patients: NDArray[np.str_], seed: int
) -> tuple[float, float]:
    """95 % interval of the AUROC from patients drawn with replacement (percentile bootstrap)."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    scores = []
    for _ in range(BOOTSTRAPS):
        drawn = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        score = auroc(labels[drawn], found[drawn])
        if score is not None:
            scores.append(score)
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def as_file(network: Abmil, record: dict[str, Any]) -> bytes:
    """A safetensors file of a trained network, its card and the record of its training in the metadata.

    Args:
        network: Trained.
        record: Of the tiles: `encoder`, `weights_sha256`, `tiling`; of the labels: `label`, `classes`, `slide_ids`; and what else
            there is to say.
    """
    from safetensors.torch import save

    about = {"kind": TRAINED, "dim_in": len(network.standardize.mean), "dim": network.classify.in_features, **record}
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    return save(state, metadata={METADATA: json.dumps(about, sort_keys=True)})
