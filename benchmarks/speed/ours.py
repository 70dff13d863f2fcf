"""pathassets as it is measured: `python -m benchmarks.speed.ours feed|whole|loop SLIDE [ENCODER]`.

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

TILING = {"px224": {"tile_px": 224, "mpp": 0.5}}


def null_encoder() -> Encoder:
    """The mean colour: an encoder that costs next to nothing, behind the same preprocessing as any other."""
    import torch

    from pathassets.encoders.card import EncoderCard
    from pathassets.encoders.encoder import Encoder
    from pathassets.encoders.precision import resolve_precision

    class Mean(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

    card = EncoderCard(name="null", dim=3, input_px=224, description="Mean colour.")
    return Encoder(card, Mean(), device="cpu", precision=resolve_precision("auto", "cpu"), weights_sha256="none")


def study_session(home: Path, slide: Path, encoder: str) -> tuple[Session, str]:
    """A study with one slide, registered."""
    from pathassets.config import Study
    from pathassets.steps.register import register
    from pathassets.steps.session import Session

    recipe = {"encoder": encoder, "tiling": "px224", "random_weights": True}
    session = Session(Study(home, device="cpu", tilings=TILING, recipes=[recipe]))
    return session, register(session, [slide])[0].slide_id


def run_steps(session: Session, slide_id: str, steps: set[str]) -> None:
    """Some steps of a slide's chain, as a run does them."""
    from pathassets.steps.batch import run_batch
    from pathassets.steps.nodes import chain

    wanted = [node for node in chain(session.study) if str(node.step) in steps]

    def check(result: object) -> None:
        assert result.usable, result

    run_batch(session, [slide_id], wanted, check)


def prepare(session: Session, slide_id: str) -> None:
    """Everything before the embeddings."""
    run_steps(session, slide_id, {"slide", "tissue", "tiles"})


def feed(slide: Path) -> None:
    """Pixels to Zarr with the null encoder."""
    from pathassets.engine import EmbedPlan, embed_slide
    from pathassets.recipes import EmbeddingOptions
    from pathassets.steps.tiles import slide_tile_size
    from pathassets.store.arrays import EmbeddingsWriter

    with tempfile.TemporaryDirectory() as home:
        session, slide_id = study_session(Path(home), slide, "demo-vlm")
        prepare(session, slide_id)
        tiles = session.tables.read("tiles", slide_id, "px224")
        size = slide_tile_size(session.study.recipes[0].tiling, session.slide_row(slide_id))
        encoder = null_encoder()
        plan = EmbedPlan.of(EmbeddingOptions(), encoder)

        def work() -> int:
            writer = EmbeddingsWriter(session.root, slide_id, "0" * 16, n_tiles=len(tiles), dim=encoder.dim)
            with session.open_slide(slide_id) as pixels, writer:
                embed_slide(pixels, tiles, size, encoder, writer, plan)
                writer.finish(tiles, {})
            return len(tiles)

        measure(work)


def whole(slide: Path, encoder: str) -> None:
    """Tissue, tiles and embeddings, with the encoder loaded beforehand."""
    with tempfile.TemporaryDirectory() as home:
        session, slide_id = study_session(Path(home), slide, encoder)
        session.encoder(session.study.recipes[0])

        def work() -> int:
            run_steps(session, slide_id, {"slide", "tissue", "tiles", "embeddings"})
            return len(session.tables.read("tiles", slide_id, "px224"))

        measure(work)


def loop(slide: Path) -> None:
    """The plainest reader there is: OpenSlide's `read_region`, tile by tile, at the wanted resolution."""
    import openslide

    from pathassets.steps.tiles import slide_tile_size

    with tempfile.TemporaryDirectory() as home:
        session, slide_id = study_session(Path(home), slide, "demo-vlm")
        prepare(session, slide_id)
        tiles = session.tables.read("tiles", slide_id, "px224").select("x_px", "y_px").rows()
        edge = slide_tile_size(session.study.recipes[0].tiling, session.slide_row(slide_id)).size_hw[0]

        def work() -> int:
            with openslide.OpenSlide(str(slide)) as pixels:
                for place in tiles:
                    picture = pixels.read_region(place, 0, (edge, edge)).convert("RGB")
                    if edge != 224:
                        picture.resize((224, 224))
            return len(tiles)

        measure(work)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
