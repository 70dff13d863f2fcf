"""pathassets: whole-slide images to Dagster assets.

    from pathassets import Study, load_encoder

    Study("study").scan("tiles").collect()            # any table, as polars
    load_encoder("demo-vlm")(images)                  # (n, h, w, 3) uint8 -> (n, dim) float32

The public names are loaded when they are first used: importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathassets.config import Study
    from pathassets.encoders import load_encoder

__version__ = "0.1.0"
__all__ = ["Study", "__version__", "load_encoder"]


def __getattr__(name: str) -> Any:
    if name == "Study":
        from pathassets.config import Study

        return Study
    if name == "load_encoder":
        from pathassets.encoders import load_encoder

        return load_encoder
    raise AttributeError(f"module 'pathassets' has no attribute {name!r}")
