"""Patches: a folder of pictures through an encoder into one file, without slides and without a study.

Belongs here: which pictures count, what cannot be read, the file. Does not belong: tiles of slides (`steps/`), networks.

    patches = embed_patches(Path("patches"), load_encoder("demo-vlm"))   # patches.table, patches.vectors, patches.failed
"""

from __future__ import annotations

import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pathassets import __version__
from pathassets.encoders.weights import file_sha256
from pathassets.errors import ConfigError, Reason, SlideError
from pathassets.exports.files import Target
from pathassets.steps.made_from import LIBRARIES, library_versions
from pathassets.steps.nodes import Step

if TYPE_CHECKING:
    from PIL import Image

    from pathassets.encoders.encoder import Encoder

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
KINDS = (".h5ad", ".parquet")
BATCH = 16
READERS = 4
# Beyond this a picture is a slide.
MAX_PIXELS = 25_000_000
# A strip would be blown up: its short edge is brought to the network's.
MAX_ASPECT = 16
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK")


@dataclass(frozen=True)
class Patches:
    """Pictures and their vectors.

    Attributes:
        table: `path` (below the folder, with forward slashes; sorted), `width_px`, `height_px`, `sha256` of the file.
        vectors: float32 (n, dim).
        failed: What was left out and why, by path.
        made_by: The encoder's card, its weights' hash, precision and versions.
    """

    table: pl.DataFrame
    vectors: np.ndarray
    failed: dict[str, str]
    made_by: dict[str, Any]


def embed_patches(folder: Path, encoder: Encoder) -> Patches:
    """Embeds all pictures of a folder and its subfolders, whatever their sizes, in the order of their paths.

    Each goes through the card's pipeline by itself, so that its vector is that of `encoder(picture)`. Hidden files and other
    kinds of files are passed over; a picture that cannot be read is told of and left out. Pixels are held sixteen pictures at a
    time, vectors all.

    Args:
        folder: Holds PNG, JPEG and TIFF files; transparent pixels are taken for white.
        encoder: A loaded encoder.

    Raises:
        ConfigError: It is no folder, or not one of its pictures can be read.
    """
    paths = pictures_in(folder)
    rows: list[dict[str, Any]] = []
    vectors: list[np.ndarray] = []
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(paths), BATCH):
            some = paths[start : start + BATCH]
            read = dict(zip(some, readers.map(lambda path: _tried(folder, path), some), strict=True))
            failed |= {path: found for path, found in read.items() if isinstance(found, str)}
            good = {path: found for path, found in read.items() if not isinstance(found, str)}
            if good:
                inputs = np.concatenate([encoder.inputs(rgb) for rgb, _ in good.values()])
                vectors.append(encoder(inputs, preprocess=False))
            rows += [_row(path, *found) for path, found in good.items()]
    if not rows:
        why = ", ".join(f": {path}: {told}" for path, told in [*failed.items()][:1])
        raise ConfigError(
            f"none of {len(paths)} pictures in {folder} can be embedded{why}",
            remedy=f"Name a folder that holds {', '.join(SUFFIXES)} files.",
        )
    return Patches(pl.DataFrame(rows), np.concatenate(vectors), failed, _made_by(encoder))


def pictures_in(folder: Path) -> list[str]:
    """Paths of a folder's pictures below it, sorted; nothing hidden.

    Raises:
        ConfigError: It is no folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", remedy="Name the folder that holds the pictures.")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    below = (path.relative_to(folder) for path in found)
    return sorted(path.as_posix() for path in below if not any(part.startswith(".") for part in path.parts))


def read_picture(path: Path) -> np.ndarray:
    """A picture file as RGB: uint8 (h, w, 3).

    Raises:
        SlideError: `file_unreadable`, or `unsupported_pixels` for what is no patch: a slide, a strip, several pages, 16 bits.
    """
    from PIL import Image

    if not path.is_file():
        raise SlideError("it is no regular file", reason=Reason.FILE_UNREADABLE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size is judged here, and metadata does not matter
            with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
                _check(image.size, image.mode, getattr(image, "n_frames", 1))
                return np.asarray(_on_white(image), dtype=np.uint8)
    except SlideError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they meet
        what = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise SlideError(f"it cannot be read ({what})", reason=Reason.FILE_UNREADABLE) from error


def check_target(file: Path, *, force: bool) -> None:
    """Refuses a file that could not be written at the end.

    Raises:
        ConfigError: It is of another kind, or there already.
    """
    if file.suffix not in KINDS:
        raise ConfigError(f"{file.name} is neither {' nor '.join(KINDS)}", remedy="Name the file so with --out.")
    if file.is_dir() or (file.exists() and not force):
        raise ConfigError(f"{file} is there already", remedy="Name another file with --out, or say --force.")


def write_patches(patches: Patches, file: Path, *, force: bool = False) -> None:
    """Writes `.h5ad` (`X`, `obs`, `uns["pathassets"]`) or `.parquet` (`path`, `vector`, ...; metadata `pathassets`), whole or not.

    Raises:
        ConfigError: See `check_target`.
        StoreError: `disk_full`, `store_read_only`.
    """
    check_target(file, force=force)
    told = json.dumps({**patches.made_by, "failed": patches.failed}, sort_keys=True)
    make = partial(_write_h5ad if file.suffix == ".h5ad" else _write_parquet, patches, told)
    Target(file.parent, force=force).put(file.name, make)


def _write_h5ad(patches: Patches, told: str, file: Path) -> None:
    import pandas as pd
    from anndata import AnnData

    obs = patches.table.drop("path").to_pandas().set_index(pd.Index(patches.table["path"].to_list()))
    var = pd.DataFrame(index=[str(i) for i in range(patches.vectors.shape[1])])
    AnnData(X=patches.vectors, obs=obs, var=var, uns={"pathassets": told}).write_h5ad(file)


def _write_parquet(patches: Patches, told: str, file: Path) -> None:
    import pyarrow.parquet

    table = patches.table.with_columns(
        pl.Series("vector", patches.vectors, dtype=pl.Array(pl.Float32, patches.vectors.shape[1]))
    )
    arrow = table.with_columns(pl.col("vector").arr.to_list()).to_arrow()
    pyarrow.parquet.write_table(arrow.replace_schema_metadata({"pathassets": told}), file, compression="zstd")


def _tried(folder: Path, path: str) -> tuple[np.ndarray, str] | str:
    """The picture and its file's hash, or why there is none."""
    try:
        return read_picture(folder / path), file_sha256(folder / path)
    except SlideError as error:
        return f"{error.message} [{error.reason}]"
    except OSError as error:  # gone since it was read
        return f"it cannot be read ({error.strerror}) [{Reason.FILE_UNREADABLE}]"


def _row(path: str, rgb: np.ndarray, sha256: str) -> dict[str, Any]:
    return {"path": path, "width_px": rgb.shape[1], "height_px": rgb.shape[0], "sha256": sha256}


def _check(size: tuple[int, int], mode: str, pages: int) -> None:
    width, height = size
    problem = None
    if width * height > MAX_PIXELS:
        problem = f"{width} x {height} pixels are no patch: `pathassets run` is for slides"
    elif max(size) > MAX_ASPECT * min(size):
        problem = f"{width} x {height} pixels are a strip"
    elif pages > 1:
        problem = f"it has {pages} pages, and nobody says which"
    elif mode not in MODES:
        problem = f"its pixels are of kind {mode}, not 8 bits of grey or colour"
    if problem is not None:
        raise SlideError(problem, reason=Reason.UNSUPPORTED_PIXELS)


def _on_white(image: Image.Image) -> Image.Image:
    """A picture in RGB; what is transparent shows white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        from PIL import Image

        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), above).convert("RGB")
    return image.convert("RGB")


def _made_by(encoder: Encoder) -> dict[str, Any]:
    return {
        "card": encoder.card.to_row(),
        "weights_sha256": encoder.weights_sha256,
        "random_weights": encoder.is_random,
        "precision": encoder.precision,
        "device": encoder.device,
        "libraries": json.loads(library_versions(("pillow", *LIBRARIES[Step.EMBEDDINGS]))),
        "pathassets_version": __version__,
    }
