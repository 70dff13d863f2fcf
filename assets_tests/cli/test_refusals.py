"""What only the network itself can say is asked before a night's work, and by `--dry-run`."""

from __future__ import annotations

import pytest

from pathassets.cli import estimating, running
from pathassets.config import CONFIG_FILE
from pathassets.errors import EncoderError, Reason
from pathassets.slides.synthetic import synthetic_slide


@pytest.mark.parametrize("check", [running.prepare, estimating.dry_run_study])
def test_too_many_classes_for_a_table_are_refused_before_a_slide_is_read(tmp_path, check):
    synthetic_slide(tmp_path / "s.tiff", seed=1, width_px=640, height_px=640)
    home = tmp_path / "study"
    running.init_home(home)
    (home / CONFIG_FILE).write_text(
        '[[recipes]]\nencoder = "timm/test_vit"\nrandom_weights = true\nembeddings = {include_preds = true}\n'
    )
    with pytest.raises(EncoderError, match="1000 classes") as caught:
        check(running.Request(home=home, paths=(str(tmp_path / "s.tiff"),), device="cpu"))
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert "top_k" in caught.value.remedy
