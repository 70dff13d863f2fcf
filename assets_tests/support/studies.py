"""The settings of small studies: one coarse tiling, one tiny untrained encoder.

Belongs here: text of `pathassets.toml` that several tests share. Does not belong: homes and slides.
"""

from __future__ import annotations

# Settings of [study] stand before it.
TINY = """
[tilings.small]
tile_px = 160
mpp = 1.0
[[recipes]]
encoder = "timm/test_vit"
name = "tiny"
random_weights = true
tiling = "small"
"""
TINY_ON_CPU = f"""
[study]
device = "cpu"
{TINY}"""
