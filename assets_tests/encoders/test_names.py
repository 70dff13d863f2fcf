"""Names of encoders: however a paper, the hub or another framework writes them, and what is said of those that nobody has."""

from __future__ import annotations

import pytest

from pathassets.encoders import canonical, get_card, list_cards
from pathassets.encoders.slide import get_slide_card
from pathassets.errors import EncoderError, Reason, UnknownEncoderError


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        ("UNI", "uni"), ("UNI2-h", "uni2-h"), ("uni2h", "uni2-h"), ("CONCH", "conch"), ("PLIP", "plip"), ("GigaPath", "gigapath"),
        ("CTransPath", "ctranspath"), ("RetCCL", "retccl"), ("Phikon", "phikon"), ("Phikon-v2", "phikon-v2"), ("Virchow2", "virchow2"),
        ("MUSK", "musk"), ("KEEP", "keep"), ("Hibou-B", "hibou-b"), ("Hibou_L", "hibou-l"), ("BiomedCLIP", "biomedclip"),
        ("MedSigLIP", "medsiglip"), ("QuiltNet-B-32", "quiltnet-b32"), ("H-optimus-1", "h-optimus-1"), ("H0-mini", "h0-mini"),
        ("Midnight-12k", "midnight"), ("midnight12k", "midnight"), ("histossl", "phikon"), ("MahmoodLab/UNI2-h", "uni2-h"),
        ("prov-gigapath", "gigapath"), ("paige-ai/Virchow2", "virchow2"), ("bioptimus/H-optimus-0", "h-optimus-0"),
    ],
)  # fmt: skip
def test_a_name_is_taken_however_it_is_written(written, ours):
    assert canonical(written) == ours
    assert get_card(written).name == ours


def test_our_own_names_are_themselves():
    for card in list_cards():
        assert canonical(card.name) == card.name


@pytest.mark.parametrize(
    "name", ["timm/vit_small_patch16_224", "timm/resnet50.tv_in1k", "resnet50", "vit_tiny_patch16_224"]
)
def test_names_of_libraries_stay_as_they_are(name):
    assert canonical(name) == name


@pytest.mark.parametrize("written", ["TITAN", "titan"])
def test_a_slide_encoder_that_cannot_run_says_so_in_a_tile_encoders_place_too(written):
    with pytest.raises(UnknownEncoderError, match="is a slide encoder, and cannot run here") as caught:
        get_card(written)
    assert caught.value.remedy == get_slide_card("titan").instead


def test_a_slide_encoder_in_a_tile_encoders_place_is_told_where_it_belongs():
    for name in ("gigapath-slide", "gigapath.slide", "GigaPath-Slide"):
        with pytest.raises(UnknownEncoderError) as caught:
            get_card(name)
        assert "--encoder gigapath --slide-encoder gigapath-slide" in caught.value.remedy


def test_each_near_name_is_suggested_once():
    with pytest.raises(UnknownEncoderError) as caught:
        get_card("virchow3")
    near = caught.value.remedy.partition("Did you mean ")[2].partition("?")[0].split(", ")
    assert "virchow2" in near
    assert len({canonical(name) for name in near}) == len(near)


@pytest.mark.parametrize("name", ["", None, 3])
def test_what_is_no_name_is_refused_in_words(name):
    with pytest.raises(UnknownEncoderError):
        get_card(name)


@pytest.mark.parametrize(
    "values", [[123, 117, 104], [0.5, 0.5], ["a", "b", "c"], 0.5, None, [0.5, 0.5, -0.1], [float("nan")] * 3]
)
@pytest.mark.parametrize("key", ["mean", "std"])
def test_colours_that_are_none_are_refused(key, values):
    with pytest.raises(EncoderError, match=r"0\.\.1") as caught:
        get_card("uni", {key: values})
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_a_spread_of_nothing_is_refused():
    with pytest.raises(EncoderError):
        get_card("uni", {"std": [0.2, 0.0, 0.2]})
