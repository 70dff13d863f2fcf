"""Whose tiles a network sees: those that its authors cut, unless somebody says otherwise, and then it is told."""

from __future__ import annotations

import pytest

from pathassets.cli import doctor
from pathassets.cli.notes import say_notes
from pathassets.config import CONFIG_FILE, Study, init_home
from pathassets.editing import add_recipes
from pathassets.encoders import recommended_tiles, unlike_authors
from pathassets.recipes import Tiling


def keys(home):
    return [recipe.key for recipe in Study(home).recipes]


@pytest.mark.parametrize(
    ("encoder", "key"),
    [
        ("conch", "px512_mpp050/conch"), ("ctranspath", "px256_mpp100/ctranspath"), ("uni", "px256_mpp050/uni"),
        ("virchow2", "px224_mpp050/virchow2"), ("gigapath", "px256_mpp050/gigapath"), ("timm/resnet18", "px224_mpp050/timm_resnet18"),
    ],
)  # fmt: skip
def test_a_new_encoder_sees_what_its_authors_cut(tmp_path, encoder, key):
    init_home(tmp_path)
    assert add_recipes(tmp_path, [encoder], random_weights=True) == [key]
    assert keys(tmp_path)[-1] == key
    before = (tmp_path / CONFIG_FILE).read_text()
    assert add_recipes(tmp_path, [encoder], random_weights=True) == [key], "the same again changes nothing"
    assert (tmp_path / CONFIG_FILE).read_text() == before


def test_two_encoders_of_one_command_have_each_their_own(tmp_path):
    init_home(tmp_path)
    add_recipes(tmp_path, ["conch", "uni"], random_weights=True, replace=True)
    assert keys(tmp_path) == ["px512_mpp050/conch", "px256_mpp050/uni"]


def test_the_command_line_and_a_recipe_that_is_there_win(tmp_path):
    init_home(tmp_path)
    assert add_recipes(tmp_path, ["conch"], tile_px=224, mpp=1.0, random_weights=True) == ["px224_mpp100/conch"]
    assert add_recipes(tmp_path, ["conch"]) == ["px224_mpp100/conch"]
    assert add_recipes(tmp_path, ["conch"], mpp=0.25) == ["px512_mpp025/conch"], "what is left open is the authors'"


def test_a_tiling_of_the_same_tiles_is_shared_whatever_it_is_called(tmp_path):
    (tmp_path / CONFIG_FILE).write_text(
        "[tilings.first]\ntile_px = 224\nmpp = 0.5\n[tilings.mine]\ntile_px = 256\nmpp = 0.5\n"
        '[[recipes]]\nencoder = "demo-vlm"\ntiling = "first"\n'
    )
    assert add_recipes(tmp_path, ["uni"], random_weights=True) == ["mine/uni"]


def test_a_recipe_alone_in_the_settings_is_enough(tmp_path):
    (tmp_path / CONFIG_FILE).write_text('[[recipes]]\nencoder = "CONCH"\nrandom_weights = true\n')
    study = Study(tmp_path)
    assert keys(tmp_path) == ["px512_mpp050/conch"]
    assert study.tilings["px512_mpp050"].tile_hw == (512, 512)


def test_a_tiling_in_the_settings_is_taken_by_recipes_that_name_none(tmp_path):
    (tmp_path / CONFIG_FILE).write_text('[tilings.mine]\ntile_px = 96\nmpp = 1.0\n[[recipes]]\nencoder = "conch"\n')
    assert keys(tmp_path) == ["mine/conch"]


def test_others_than_the_authors_are_told(tmp_path, capsys):
    (tmp_path / CONFIG_FILE).write_text(
        '[tilings.mine]\ntile_px = 224\nmpp = 0.5\n[[recipes]]\nencoder = "conch"\nrandom_weights = true\n'
    )
    study = Study(tmp_path)
    say_notes(study.recipes)
    assert "conch was made for tiles of 512 px at 0.5" in capsys.readouterr().out
    [line] = [line for line in doctor.diagnose(study) if line.check == "tiles of mine/conch"]
    assert line.status == "warning"
    assert "tile_px = 512, mpp = 0.5" in line.fix


def test_what_shows_the_network_the_same_is_not_told():
    assert unlike_authors("uni", Tiling(tile_px=256, mpp=0.5)) is None
    assert unlike_authors("uni", Tiling(tile_px=256, power=20)) is None
    assert unlike_authors("uni", Tiling(tile_px=256)) is None, "the slide's own resolution: nobody can tell"
    assert unlike_authors("timm/resnet18", Tiling(tile_px=99, mpp=3)) is None
    assert recommended_tiles("timm/resnet18") is None
    assert unlike_authors("uni", Tiling(tile_px=256, mpp=1.0))
