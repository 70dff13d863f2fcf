"""pathassets as it is measured: `python -m benchmarks.speed.ours feed|loop|whole SLIDE WARM_UP [ENCODER]`.

Belongs here: the product's own stages, called as the steps call them. Does not belong: the peers (`peers`).
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.speed.child import measure

if TYPE_CHECKING:
    from pathassets.encoders.encoder import Encoder
    from pathassets.steps.session import Session

PX = 224
TILING = {"px224": {"tile_px": PX, "mpp": 0.5}}


def null_encoder() -> Encoder:
    """A tile's first pixel: an encoder that costs nothing, behind the same preprocessing as any other."""
    import torch

    from pathassets.encoders.card import EncoderCard
    from pathassets.encoders.encoder import Encoder
    from pathassets.encoders.precision import resolve_precision

    class OnePixel(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :, 0, 0]

    card = EncoderCard(name="null", dim=3, input_px=224, description="One pixel.")
    return Encoder(card, OnePixel(), device="cpu", precision=resolve_precision("auto", "cpu"), weights_sha256="none")


def study_session(home: Path, slide: Path, encoder: str, device: str = "cpu") -> tuple[Session, str]:
    """A study with one slide, registered."""
    from pathassets.config import Study
    from pathassets.steps.register import register
    from pathassets.steps.session import Session

    home.mkdir(parents=True, exist_ok=True)
    recipe = {"encoder": encoder, "tiling": "px224", "random_weights": True}
    session = Session(Study(home, device=device, tilings=TILING, recipes=[recipe]))
    return session, register(session, [slide])[0].slide_id


def run_steps(session: Session, slide_id: str, steps: set[str]) -> None:
    """Some steps of a slide's chain, as a run does them."""
    from pathassets.steps.batch import run_batch
    from pathassets.steps.nodes import chain

    wanted = [node for node in chain(session.study) if str(node.step) in steps]

    def check(result: object) -> None:
        assert result.usable, result

    run_batch(session, [slide_id], wanted, check)


def feed(slide: Path, warm_up: Path) -> None:
    """Pixels to Zarr with the null encoder; tissue and tiles beforehand."""
    with tempfile.TemporaryDirectory() as home:
        small, whole_slide = _Tiled(Path(home) / "small", warm_up), _Tiled(Path(home) / "slide", slide)
        encoder = null_encoder()
        measure(lambda: whole_slide.embed(encoder), lambda: small.embed(encoder))


def loop(slide: Path, warm_up: Path) -> None:
    """The plainest reader there is: OpenSlide's `read_region`, tile by tile, at the wanted resolution."""
    with tempfile.TemporaryDirectory() as home:
        small, whole_slide = _Tiled(Path(home) / "small", warm_up), _Tiled(Path(home) / "slide", slide)
        measure(whole_slide.read_regions, small.read_regions)


def whole(slide: Path, warm_up: Path, encoder: str) -> None:
    """Tissue, tiles and embeddings, with the encoder loaded beforehand."""
    with tempfile.TemporaryDirectory() as home:
        sessions = [study_session(Path(home) / path.stem, path, encoder) for path in (slide, warm_up)]
        for session, _ in sessions:
            session.encoder(session.study.recipes[0])
        measure(lambda: _embedded(*sessions[0]), lambda: _embedded(*sessions[1]))


def _embedded(session: Session, slide_id: str) -> int:
    run_steps(session, slide_id, {"slide", "tissue", "tiles", "embeddings"})
    return len(session.tables.read("tiles", slide_id, "px224"))


class _Tiled:
    """A slide with its tiles, ready to be read."""

    def __init__(self, home: Path, path: Path) -> None:
        from pathassets.steps.tiles import slide_tile_size

        self._path = path
        self._session, self._slide_id = study_session(home, path, "demo-vlm")
        run_steps(self._session, self._slide_id, {"slide", "tissue", "tiles"})
        self._tiles = self._session.tables.read("tiles", self._slide_id, "px224")
        self._size = slide_tile_size(self._session.study.recipes[0].tiling, self._session.slide_row(self._slide_id))

    def embed(self, encoder: Encoder) -> int:
        """Through the engine into a Zarr group."""
        from pathassets.engine import EmbedPlan, embed_slide
        from pathassets.recipes import EmbeddingOptions
        from pathassets.store.arrays import EmbeddingsWriter

        n, plan = len(self._tiles), EmbedPlan.of(EmbeddingOptions(), encoder)
        writer = EmbeddingsWriter(self._session.root, self._slide_id, "0" * 16, n_tiles=n, dim=encoder.dim)
        with self._session.open_slide(self._slide_id) as pixels, writer:
            embed_slide(pixels, self._tiles, self._size, encoder, writer, plan)
            writer.finish(self._tiles, {})
        return n

    def read_regions(self) -> int:
        """With OpenSlide alone."""
        import openslide

        edge = self._size.size_hw[0]
        with openslide.OpenSlide(str(self._path)) as pixels:
            for place in self._tiles.select("x_px", "y_px").rows():
                picture = pixels.read_region(place, 0, (edge, edge)).convert("RGB")
                if edge != PX:
                    picture.resize((PX, PX))
        return len(self._tiles)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    globals()[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
