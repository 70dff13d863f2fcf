"""`run --tokenizer`: refused when it is not the encoder's, written beside the encoder when it is; `--dry-run` refuses the same."""

from __future__ import annotations

import dataclasses

import pytest
from support.text_towers import byte_pairs
from transformers import CLIPTokenizerFast

from pathassets.cli import estimating, running
from pathassets.config import CONFIG_FILE, Study
from pathassets.encoders import get_card
from pathassets.errors import ConfigError, PathassetsError, Reason


def asked(home, **more) -> running.Request:
    told = {"encoders": ("plip",), "random_weights": True, "device": "cpu"}
    return running.Request(home=home, **{**told, **more})


@pytest.fixture
def other(tmp_path):
    """A tokenizer that numbers begin and end of a text otherwise than CLIP's."""
    path = tmp_path / "tokenizer.json"
    byte_pairs(path, "<|startoftext|>", "<|endoftext|>")
    return path


@pytest.fixture
def clip(data_dir, tmp_path):
    """CLIP's own, from its list of merges."""
    import gzip

    merges = gzip.decompress((data_dir / "weights" / "clip_bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode()
    pairs = [tuple(line.split()) for line in merges.split("\n")[1 : 49152 - 256 - 2 + 1]]
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())
    words = [*symbols, *(one + "</w>" for one in symbols), *("".join(pair) for pair in pairs)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder = tmp_path / "clip"
    CLIPTokenizerFast(vocab={word: i for i, word in enumerate(words)}, merges=pairs).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("check", [running.prepare, estimating.dry_run_study])
def test_a_tokenizer_of_another_encoder_is_refused_before_anything_is_written(tmp_path, other, check):
    home = tmp_path / "study"
    running.init_home(home)
    before = (home / CONFIG_FILE).read_text()
    with pytest.raises(PathassetsError) as caught:
        check(asked(home, tokenizer=other))
    assert caught.value.reason is Reason.TOKENIZER_MISMATCH
    assert (home / CONFIG_FILE).read_text() == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoders": ("plip", "quiltnet-b-32")}, Reason.CONFIG_INVALID),
        ({"encoders": ()}, Reason.CONFIG_INVALID),
        ({"encoders": ("uni",)}, Reason.TEXT_TOWER_MISSING),
        ({"tokenizer": "gone.json"}, Reason.TOKENIZER_MISSING),
    ],
)
def test_one_that_helps_nobody_is_refused(tmp_path, other, change, reason):
    with pytest.raises((ConfigError, PathassetsError)) as caught:
        running.check_asked_for(asked(tmp_path, **{"tokenizer": other, **change}))
    assert caught.value.reason is reason
    assert caught.value.remedy


def test_it_is_written_beside_the_encoder_and_stays_there(tmp_path, clip):
    assert get_card("plip").has_text
    home = tmp_path / "study"
    request = asked(home, tokenizer=clip)
    running.prepare(request)
    (recipe,) = Study(home).recipes
    assert recipe.tokenizer == str(clip)
    running.prepare(dataclasses.replace(request, tokenizer=None))
    assert Study(home).recipes[0].tokenizer == str(clip)
