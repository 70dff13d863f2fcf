"""Golden vectors: what an encoder gave for one drawn tile, kept, so that a library that changes its numbers is noticed.

Belongs here: recording and comparing. Does not belong: promises that hold without a record (`pathassets.testing`).

They lie in `golden/` of the home folder: the tile once, as PNG, and a file of JSON for each encoder with certain weights. Computed in
fp32 on the CPU, whatever device the study has.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathassets.encoders.precision import compare
from pathassets.errors import ConfigError
from pathassets.recipes import digest, slug
from pathassets.steps.made_from import LIBRARIES, library_versions
from pathassets.steps.nodes import Step
from pathassets.store.local_root import LocalRoot

if TYPE_CHECKING:
    from pathassets.encoders.encoder import Encoder

FOLDER = "golden"
TILE = f"{FOLDER}/tile.png"
TILE_PX, SEED = 256, 20
# fp32 rounds to a thousandth of this, which sums in another order may add up to a tenth.
MAX_REL_ERROR = 1e-4


@dataclass(frozen=True)
class Golden:
    """An encoder held against its record.

    Attributes:
        path: The record.
        is_new: Whether it was made now.
        cosine: Of the vectors of then and now.
        max_rel_error: Length of their difference as a share of the vector of then.
        changes: Versions of libraries that are others now: then and now.
    """

    path: Path
    is_new: bool
    cosine: float = 1.0
    max_rel_error: float = 0.0
    changes: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)

    @property
    def is_same(self) -> bool:
        """Whether the numbers are still those of then."""
        return self.max_rel_error <= MAX_REL_ERROR


def check_golden(home: Path, encoder: Encoder) -> Golden:
    """Records an encoder's vector of the drawn tile, or compares it with the one that was recorded.

    Args:
        home: Holds the records.
        encoder: Loaded, on any device.

    Raises:
        ConfigError: The record, or the tile, is damaged.
        StoreError: `disk_full`, `store_read_only`.
    """
    root = LocalRoot(home)
    tile = _tile(root)
    vector = encoder.at("fp32", "cpu")(tile)[0]
    name = f"{slug(encoder.card.name)}-{digest(encoder.weights_sha256, encoder.card.pipeline, encoder.card.pooling)}"
    key = f"{FOLDER}/{name}.json"
    versions: dict[str, str] = json.loads(library_versions(LIBRARIES[Step.EMBEDDINGS]))
    tile_sha256 = hashlib.sha256(tile.tobytes()).hexdigest()
    data = root.read_if_there(key)
    if data is None:
        record = {
            "encoder": encoder.card.name,
            "weights_sha256": encoder.weights_sha256,
            "tile_sha256": tile_sha256,
            "versions": versions,
            "vector": [float(value) for value in vector],
        }
        root.put(key, json.dumps(record).encode())
        return Golden(root.local(key), True)
    then = _record(root.local(key), data, len(vector), tile_sha256)
    agreement = compare(vector[None], np.array(then["vector"], np.float32)[None])
    known = {**then["versions"], **versions}
    changes = {
        name: (then["versions"].get(name), versions.get(name))
        for name in sorted(known)
        if then["versions"].get(name) != versions.get(name)
    }
    return Golden(root.local(key), False, agreement.cosine, agreement.max_rel_error, changes)


def _tile(root: LocalRoot) -> np.ndarray:
    """The tile of the first record: uint8 (1, 256, 256, 3); kept as it is, because drawing may change as well."""
    from PIL import Image

    from pathassets.slides.synthetic import synthetic_tiles

    data = root.read_if_there(TILE)
    if data is None:
        drawn, buffer = synthetic_tiles(1, seed=SEED, size_px=TILE_PX).images, io.BytesIO()
        Image.fromarray(drawn[0]).save(buffer, "PNG")
        root.put(TILE, buffer.getvalue())
        return drawn
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)[None]
    except Exception as error:  # Pillow's decoders raise whatever they meet
        raise _damaged(root.local(TILE), str(error)) from error


def _record(path: Path, data: bytes, dim: int, tile_sha256: str) -> dict[str, Any]:
    try:
        record = dict(json.loads(data))
        if (len(record["vector"]), record["tile_sha256"]) != (dim, tile_sha256):
            raise _damaged(path, "it is of another tile, or of another length")
        np.array(record["vector"], np.float32)
        dict(record["versions"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise _damaged(path, str(error)) from error
    return record


def _damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path} cannot be compared with: {why}", remedy="Delete it; the next call records anew.")
