"""Cards and names: what can be asked for without loading a network."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from pathassets.encoders import get_card, has_text, list_cards, registry
from pathassets.encoders.card import HALF, EncoderCard
from pathassets.errors import EncoderError, Reason, UnknownEncoderError


def a_card(**changes):
    return EncoderCard(**{"name": "x", "dim": 4, "input_px": 32, "description": "a test", **changes})


def test_a_row_holds_every_field_as_plain_values():
    row = a_card(mean=HALF, templates=("a {}",)).to_row()
    assert row["mean"] == [0.5, 0.5, 0.5]
    assert row["templates"] == ["a {}"]
    assert set(row) == set(EncoderCard.__dataclass_fields__)


@pytest.mark.parametrize("changes", [{"dim": 0}, {"resize": 16}, {"std": (1.0, 0.0, 1.0)}, {"has_text": True}])
def test_an_impossible_card_is_refused(changes):
    with pytest.raises(ValueError, match="card 'x'"):
        a_card(**changes)


def test_cards_hashes_and_the_question_for_text_do_not_load_torch():
    code = (
        "import sys, pathassets.encoders as e, pathassets.engine\n"
        "assert e.list_cards() and e.has_text('demo-vlm') and not e.has_text('timm/resnet18')\n"
        "assert e.weights_digest('timm/resnet18', random_weights=True).startswith('random-')\n"
        "print([m for m in ('torch', 'timm') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_demonstration_encoder_is_listed_and_says_what_it_is_not():
    card = next(card for card in list_cards() if card.name == "demo-vlm")
    assert card.has_text
    assert "procedural" in card.description
    assert has_text("demo-vlm")


def test_any_timm_model_has_a_card_from_its_own_configuration():
    card = get_card("timm/resnet18")
    assert (card.dim, card.input_px, card.interpolation, card.family) == (512, 224, "bicubic", "timm")
    assert card.hub_id == "timm/resnet18.a1_in1k"
    assert card.resize_px == 224, "timm's crop would throw away the tile's border"


def test_a_weight_tag_picks_that_weights_configuration():
    assert get_card("timm/resnet18.tv_in1k").interpolation == "bilinear"
    assert get_card("timm/resnet18.tv_in1k").hub_id == "timm/resnet18.tv_in1k"


def test_the_width_is_what_comes_out_and_not_what_the_model_calls_its_features():
    assert get_card("timm/mobilenetv3_small_100").dim == 1024  # its num_features is 576


def test_the_image_size_of_the_arguments_is_the_cards():
    assert get_card("timm/test_vit", {"img_size": 96}).input_px == 96


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownEncoderError) as caught:
        get_card("timm/resnet_18")
    assert "resnet18" in caught.value.remedy
    assert caught.value.reason is Reason.ENCODER_UNKNOWN
    with pytest.raises(UnknownEncoderError, match="demo-vlm"):
        get_card("demo-vml")
    assert isinstance(caught.value, KeyError)


def test_an_unknown_weight_tag_names_those_that_exist():
    with pytest.raises(EncoderError, match=r"a1_in1k.*tv_in1k"):
        get_card("timm/resnet18.nonsense")


def test_preprocessing_can_be_overridden_and_is_checked():
    card = get_card("timm/resnet18", {"mean": [0.5, 0.5, 0.5], "interpolation": "nearest", "resize": 256})
    assert (card.mean, card.interpolation, card.resize_px) == (HALF, "nearest", 256)
    for wrong in ({"mean": [0.5]}, {"interpolation": "sinc"}, {"std": [0, 0, 0]}, {"resize": 8}):
        with pytest.raises(EncoderError) as caught:
            get_card("timm/resnet18", wrong)
        assert caught.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize(
    "kwargs", [{"no_such_argument": 1}, {"num_classes": 7}, {"checkpoint_path": "x.pth"}, {"global_pool": ""}]
)
def test_arguments_that_give_no_encoder_are_refused(kwargs):
    with pytest.raises(EncoderError, match=r"global_pool|encoder_kwargs"):
        get_card("timm/test_vit", kwargs)


@pytest.fixture
def plug_in(monkeypatch):
    """Installs an entry point for the length of a test."""

    def install(name: str, value: str) -> None:
        point = EntryPoint(name, value, registry.ENTRY_POINT_GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
        registry._families.cache_clear()

    yield install
    registry._families.cache_clear()


class Family:
    """A plug-in: an encoder of four numbers."""

    @staticmethod
    def card() -> EncoderCard:
        return a_card(name="four-numbers")


class Doppelganger:
    @staticmethod
    def card() -> EncoderCard:
        return a_card(name="demo-vlm")


def test_a_plug_in_is_found_through_its_entry_point(plug_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "a_plug_in", sys.modules[__name__])
    plug_in("four", "a_plug_in:Family")
    assert get_card("four-numbers").dim == 4
    assert {"demo-vlm", "uni", "four-numbers"} <= {card.name for card in list_cards()}


def test_a_broken_plug_in_costs_those_who_name_it(plug_in):
    plug_in("broken", "no_such_package:family")
    assert {"demo-vlm", "uni"} <= {card.name for card in list_cards()}
    assert get_card("uni").dim == 1024
    assert list(registry.broken_plugins()) == ["broken"]
    with pytest.raises(EncoderError, match=r"'broken' \(no_such_package:family\)"):
        get_card("broken")


def test_two_encoders_of_one_name_are_refused(plug_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "a_plug_in", sys.modules[__name__])
    plug_in("twice", "a_plug_in:Doppelganger")
    with pytest.raises(EncoderError, match="two encoders are called 'demo-vlm'"):
        list_cards()
