"""A folder of patches into one file: the vectors are the encoder's, what is no patch is told of, nothing is half-written."""

from __future__ import annotations

import hashlib
import json
import os

import anndata
import numpy as np
import polars as pl
import pyarrow.parquet
import pytest
from PIL import Image
from support.commands import run_command

from pathassets import load_encoder
from pathassets.errors import ConfigError
from pathassets.exports.patches import embed_patches, write_patches


def pixels(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="fp32")


@pytest.fixture
def folder(tmp_path):
    """Pictures of several kinds and sizes, in no order, and files that are no pictures."""
    found = tmp_path / "patches"
    (found / "b").mkdir(parents=True)
    Image.fromarray(pixels(1)).save(found / "z.png")
    Image.fromarray(pixels(2, 200, 130)).save(found / "b" / "a.tiff")
    Image.fromarray(pixels(3, 300, 300)).save(found / "A.JPG")
    Image.fromarray(pixels(4)).save(found / ".hidden.png")
    (found / "._z.png").write_bytes(b"what another system leaves beside a file")
    (found / "notes.txt").write_text("no picture")
    (found / ".cache").mkdir()
    Image.fromarray(pixels(5)).save(found / ".cache" / "x.png")
    return found


def test_vectors_are_the_encoders_whatever_the_sizes_in_the_order_of_paths(folder, encoder):
    patches = embed_patches(folder, encoder)
    assert patches.table["path"].to_list() == ["A.JPG", "b/a.tiff", "z.png"]
    assert patches.table.select("width_px", "height_px").rows() == [(300, 300), (130, 200), (64, 64)]
    assert patches.failed == {}
    pictures = [np.asarray(Image.open(folder / path)) for path in patches.table["path"]]
    np.testing.assert_allclose(
        patches.vectors, np.concatenate([encoder(picture) for picture in pictures]), rtol=1e-4, atol=1e-5
    )
    hashes = [hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in patches.table["path"]]
    assert patches.table["sha256"].to_list() == hashes


def test_more_than_a_batch_keeps_its_order(tmp_path, encoder):
    for number in range(37):
        Image.fromarray(np.full((20, 20, 3), 6 * number, np.uint8)).save(tmp_path / f"{number:03d}.png")
    (tmp_path / "020.png").write_bytes(b"broken")
    patches = embed_patches(tmp_path, encoder)
    numbers = [number for number in range(37) if number != 20]
    assert patches.table["path"].to_list() == [f"{number:03d}.png" for number in numbers]
    expected = encoder(np.stack([np.full((20, 20, 3), 6 * number, np.uint8) for number in numbers]))
    np.testing.assert_allclose(patches.vectors, expected, rtol=1e-4, atol=1e-5)


def test_grey_palette_and_transparent_pictures_are_rgb(tmp_path, encoder):
    grey = np.full((32, 32), 77, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([grey] * 3)).quantize(4).save(tmp_path / "palette.png")
    clear = np.dstack([grey, grey, grey, np.zeros_like(grey)])
    Image.fromarray(clear, "RGBA").save(tmp_path / "clear.png")
    patches = embed_patches(tmp_path, encoder)
    white, plain = (encoder(np.full((1, 32, 32, 3), value, np.uint8))[0] for value in (255, 77))
    assert patches.table["path"].to_list() == ["clear.png", "grey.png", "palette.png"]
    for found, expected in zip(patches.vectors, (white, plain, plain), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_what_is_no_patch_is_left_out_with_its_reason(folder, encoder):
    (folder / "empty.png").touch()
    (folder / "torn.png").write_bytes((folder / "z.png").read_bytes()[:600])
    (folder / "other.png").write_bytes(b"GIF89a" + bytes(50))
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(folder / "deep.tiff")
    Image.fromarray(np.zeros((4, 400, 3), np.uint8)).save(folder / "strip.png")
    Image.new("1", (6000, 6000)).save(folder / "slide.png")
    pages = [Image.fromarray(pixels(seed)) for seed in (1, 2)]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    os.mkfifo(folder / "pipe.png")
    os.symlink(folder / "nowhere.png", folder / "link.png")
    patches = embed_patches(folder, encoder)
    assert patches.table["path"].to_list() == ["A.JPG", "b/a.tiff", "z.png"]
    reasons = {path: why.rpartition("[")[2].rstrip("]") for path, why in patches.failed.items()}
    broken = ("empty.png", "torn.png", "other.png", "pipe.png", "link.png")
    strange = ("deep.tiff", "strip.png", "slide.png", "pages.tif")
    assert reasons == {**dict.fromkeys(broken, "file_unreadable"), **dict.fromkeys(strange, "unsupported_pixels")}
    assert "2 pages" in patches.failed["pages.tif"]
    assert "6000 x 6000" in patches.failed["slide.png"]


def test_folders_without_pictures_are_refused(tmp_path, encoder):
    with pytest.raises(ConfigError, match="is not a folder"):
        embed_patches(tmp_path / "nowhere", encoder)
    with pytest.raises(ConfigError, match="none of 0 pictures"):
        embed_patches(tmp_path, encoder)
    (tmp_path / "x.png").write_bytes(b"broken")
    with pytest.raises(ConfigError, match=r"none of 1 pictures .*x\.png: it cannot be read"):
        embed_patches(tmp_path, encoder)


def test_both_kinds_of_file_hold_the_same_and_say_what_made_them(folder, encoder, tmp_path):
    (folder / "empty.png").touch()
    patches = embed_patches(folder, encoder)
    write_patches(patches, tmp_path / "p.h5ad")
    write_patches(patches, tmp_path / "p.parquet")
    adata, frame = anndata.read_h5ad(tmp_path / "p.h5ad"), pl.read_parquet(tmp_path / "p.parquet")
    np.testing.assert_array_equal(adata.X, patches.vectors)
    np.testing.assert_array_equal(np.stack(frame["vector"].to_list()).astype(np.float32), patches.vectors)
    assert adata.obs_names.to_list() == frame["path"].to_list() == patches.table["path"].to_list()
    told = json.loads(adata.uns["pathassets"])
    metadata = pyarrow.parquet.read_schema(tmp_path / "p.parquet").metadata
    assert json.loads(metadata[b"pathassets"]) == told
    assert told["weights_sha256"] == encoder.weights_sha256
    assert told["random_weights"] is True
    assert told["card"]["name"] == "timm/test_vit"
    assert list(told["failed"]) == ["empty.png"]


def test_a_file_is_whole_or_not_there_and_never_replaced_unasked(folder, encoder, tmp_path, monkeypatch):
    patches, target = embed_patches(folder, encoder), tmp_path / "out" / "p.h5ad"

    def cut(self, path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(anndata.AnnData, "write_h5ad", cut)
        with pytest.raises(OSError, match="disk_full"):
            write_patches(patches, target)
    assert not any(path.is_file() for path in target.parent.rglob("*"))
    write_patches(patches, target)
    with pytest.raises(ConfigError, match="is there already"):
        write_patches(patches, target)
    write_patches(patches, target, force=True)
    with pytest.raises(ConfigError, match=r"neither \.h5ad nor \.parquet"):
        write_patches(patches, tmp_path / "p.csv")


@pytest.mark.e2e
def test_the_command_tells_what_it_left_out(folder, tmp_path):
    (folder / "empty.png").touch()
    words = ["embed-patches", folder, "--encoder", "timm/test_vit", "--random-weights", "--device", "cpu"]
    run = run_command(*words, "--out", tmp_path / "p.parquet")
    assert run.returncode == 1, run.stderr
    assert "left out: empty.png: it cannot be read" in run.stdout
    assert "3 pictures, 64 numbers each" in run.stdout
    again = run_command(*words, "--out", tmp_path / "p.parquet")
    assert again.returncode == 2
    assert "is there already" in again.stderr
