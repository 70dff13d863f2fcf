"""Cards of slide encoders: complete, of tiles that exist, and refusing what they must."""

from __future__ import annotations

import re

import pytest

from pathassets.encoders import canonical, check_licence, get_card
from pathassets.encoders.slide import get_slide_card, list_slide_cards
from pathassets.encoders.slide.zoo import aliases, entries
from pathassets.errors import EncoderError, Reason, UnknownEncoderError
from pathassets.recipes import REDUCTIONS, Tiling

CARDS = list_slide_cards()
RUNNING = {"gigapath-slide", "gigapath-slide/mean", "gigapath-flash-slide", "chief", "madeleine"}
REFUSING = {"titan", "prism", "prism2", "cobra", "feather", "care", "moozy", "eagle"}


def test_these_are_known():
    assert {card.name for card in CARDS if not card.missing} == RUNNING
    assert {card.name for card in CARDS if card.missing} == REFUSING
    assert not {card.name for card in CARDS} & set(REDUCTIONS)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_is_complete(card):
    assert len(card.description) > 20
    assert card.licence
    assert card.source
    assert re.match(r"https://", card.link)
    assert card.evidence in ("V", "S")
    assert card.takes
    for encoder in card.takes:
        assert canonical(encoder) == encoder == get_card(encoder).name
    if not card.missing:
        assert card.citation
        assert card.pooling
        tiles = get_card(card.takes[0])
        assert (tiles.dim, tiles.tile_px, tiles.mpp) == (card.dim_in, card.tile_px, card.mpp)


@pytest.mark.parametrize("name", sorted(REFUSING))
def test_what_cannot_run_says_why_and_what_to_do(name):
    card = get_slide_card(name)
    with pytest.raises(EncoderError, match=f"{name} cannot run here: ") as caught:
        card.check_runs()
    assert caught.value.reason is Reason.ENCODER_UNKNOWN
    assert len(caught.value.message) > 50
    assert re.search(r"`pathassets |Take ", caught.value.remedy)


def test_every_entry_says_nothing_that_nobody_reads():
    read = {
        "like", "about", "also", "build", "kwargs", "takes", "dim_in", "dim", "tile", "mpp", "positions", "pooling", "params", "hub",
        "file", "gated", "licence", "link", "paper", "heads", "source", "evidence", "missing", "instead", "sha256",
    }  # fmt: skip
    for name, entry in entries().items():
        assert set(entry) <= read, name


def test_names_of_other_frameworks_and_unknown_ones():
    assert get_slide_card("gigapath.slide") == get_slide_card("gigapath-slide")
    assert not set(aliases()) & set(entries())
    with pytest.raises(UnknownEncoderError, match="'gigapath-slid'") as caught:
        get_slide_card("gigapath-slid")
    assert "gigapath-slide" in caught.value.remedy
    with pytest.raises(UnknownEncoderError) as caught:
        get_slide_card("meen")
    assert "mean" in caught.value.remedy


# -- Whose tiles, and which --------------------------------------------------------------------------------------------

GIGAPATH = get_slide_card("gigapath-slide")


def refused(card, encoder, tiling, mpp=None):
    with pytest.raises(EncoderError) as caught:
        card.check_tiles(encoder, tiling, mpp=mpp)
    return caught.value


@pytest.mark.parametrize(
    "tiling",
    [Tiling(tile_px=256, mpp=0.5), Tiling(tile_px=256, power=20), Tiling(tile_px=256, tile_um=128.0), Tiling(tile_px=256),
     Tiling(tile_px=256, tile_um="20x"), Tiling(tile_px=256, level=1), Tiling(tile_px=(256, 256), mpp=0.502)],
    ids=lambda tiling: tiling.name,
)  # fmt: skip
def test_tiles_as_the_authors_cut_them_are_taken(tiling):
    GIGAPATH.check_tiles("gigapath", tiling)


def test_tiles_of_another_encoder_are_refused():
    error = refused(GIGAPATH, "uni", Tiling(tile_px=256, mpp=0.5))
    assert error.reason is Reason.ENCODER_MISMATCH
    assert "tiles of gigapath" in error.message
    assert "uni" in error.message
    assert "gigapath" in error.remedy


@pytest.mark.parametrize(
    ("tiling", "says"),
    [
        (Tiling(tile_px=224, mpp=0.5), "224 x 224 px"),
        (Tiling(tile_px=(256, 512), mpp=0.5), "512 x 256 px"),
        (Tiling(tile_px=256, mpp=1.0), "1 µm/px"),
        (Tiling(tile_px=256, power=40), "0.25 µm/px"),
        (Tiling(tile_px=256, tile_um=256.0), "1 µm/px"),
        (Tiling(tile_px=256, tile_um="10x"), "1 µm/px"),
        (Tiling(tile_px=256, mpp=0.5, overlap=0.5), "every 128 px"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_tiles_of_another_tiling_are_refused(tiling, says):
    error = refused(GIGAPATH, "gigapath", tiling)
    assert error.reason is Reason.TILING_MISMATCH
    assert says in error.message
    assert "tile_px = 256, mpp = 0.5" in error.remedy


def test_a_tiling_that_depends_on_the_slide_is_judged_on_the_slide():
    native = Tiling(tile_px=256)
    GIGAPATH.check_tiles("gigapath", native, mpp=0.4995)
    assert "0.253 µm/px" in refused(GIGAPATH, "gigapath", native, mpp=0.2525).message


def test_a_study_that_allows_some_licences_only_is_obeyed():
    check_licence(GIGAPATH, ())
    with pytest.raises(EncoderError, match="chief is under AGPL"):
        check_licence(get_slide_card("chief"), ("MIT",))
    check_licence(get_slide_card("chief"), ("commercial",))
