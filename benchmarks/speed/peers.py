"""The peers as they are measured: `python -m benchmarks.speed.peers lazyslide_feed|... SLIDE WARM_UP [WORKERS]`.

Belongs here: each peer called as its documentation says, with its defaults. Does not belong: pathassets; this runs in an
environment of its own (`peers.txt`).
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.child import measure

PX, MPP = 224, 0.5


class OnePixel(torch.nn.Module):
    """A tile's first pixel: an encoder that costs nothing."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, 0, 0]


def vit_small() -> torch.nn.Module:
    """ViT-S/16 with random weights."""
    import timm

    return timm.create_model("vit_small_patch16_224", pretrained=False, num_classes=0).eval()


def lazyslide_feed(slide: Path, warm_up: Path, workers: str = "0") -> None:
    """Feature extraction with the null encoder; tissue and tiles beforehand."""
    wsi, small = _tiled(slide), _tiled(warm_up)
    measure(lambda: _features(wsi, OnePixel(), int(workers)), lambda: _features(small, OnePixel(), int(workers)))


def lazyslide_whole(slide: Path, warm_up: Path, workers: str = "0") -> None:
    """Tissue, tiles, features and writing, with ViT-S/16."""
    network = vit_small()

    def work(path: Path) -> int:
        wsi = _tiled(path)
        tiles = _features(wsi, network, int(workers))
        with tempfile.TemporaryDirectory() as folder:
            wsi.write(Path(folder) / "slide.zarr")
        return tiles

    measure(lambda: work(slide), lambda: work(warm_up))


def _tiled(slide: Path) -> Any:
    import lazyslide as zs
    from wsidata import open_wsi

    wsi = open_wsi(str(slide), store=None)
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, PX, mpp=MPP)
    return wsi


def _features(wsi: Any, network: torch.nn.Module, workers: int) -> int:
    import lazyslide as zs
    from lazyslide_models._utils import get_default_transform

    zs.tl.feature_extraction(
        wsi, network, transform=get_default_transform(), model_name="m", num_workers=workers, pbar=False, device="cpu"
    )
    return len(wsi.shapes["tiles"])


def tiatoolbox_feed(slide: Path, warm_up: Path, workers: str = "0") -> None:
    """Tissue mask, tiles, features and Zarr with the null encoder: its engine does all in one."""
    _measure_tiatoolbox(slide, warm_up, OnePixel(), int(workers))


def tiatoolbox_whole(slide: Path, warm_up: Path, workers: str = "0") -> None:
    """The same with ViT-S/16."""
    _measure_tiatoolbox(slide, warm_up, vit_small(), int(workers))


def _measure_tiatoolbox(slide: Path, warm_up: Path, network: torch.nn.Module, workers: int) -> None:
    from tiatoolbox.models.engine.deep_feature_extractor import DeepFeatureExtractor

    engine = DeepFeatureExtractor(_tiatoolbox_model(network), batch_size=32, num_workers=workers, verbose=False)
    measure(lambda: _deep_features(engine, slide), lambda: _deep_features(engine, warm_up))


def _deep_features(engine: Any, slide: Path) -> int:
    import zarr
    from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig

    how = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": MPP}], patch_input_shape=[PX, PX], stride_shape=[PX, PX]
    )
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out"
        engine.run([slide], patch_mode=False, ioconfig=how, output_type="zarr", save_dir=target, device="cpu")
        return int(zarr.open(next(target.glob("*.zarr")), mode="r")["coordinates"].shape[0])


def _tiatoolbox_model(network: torch.nn.Module) -> Any:
    from tiatoolbox.models.models_abc import ModelABC

    mean, std = (torch.tensor(v).view(1, 1, 1, 3) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    class Wrapped(ModelABC):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images)

        @staticmethod
        def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> Any:
            images = (torch.as_tensor(batch_data).to(device).float() / 255 - mean) / std
            with torch.inference_mode():
                return [model(images.permute(0, 3, 1, 2).contiguous()).cpu().numpy()]

    return Wrapped()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    contender: Callable[..., None] = globals()[sys.argv[1]]
    contender(Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
