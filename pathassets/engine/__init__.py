"""Engine: pixels to embeddings as one stream: read ahead, batch, device, precision, shards, resume.

Importing this package loads no network library.
"""

from pathassets.engine.contract import EmbedResult, Job, Settings, ShardWriter, TileSource
from pathassets.engine.embed import Finished, embed_slide, embed_slides
from pathassets.engine.plan import EmbedPlan, PlanError

__all__ = [
    "EmbedPlan",
    "EmbedResult",
    "Finished",
    "Job",
    "PlanError",
    "Settings",
    "ShardWriter",
    "TileSource",
    "embed_slide",
    "embed_slides",
]
