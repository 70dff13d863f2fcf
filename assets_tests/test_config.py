"""Study: one file, the environment over it, and errors that name the line."""

from __future__ import annotations

import pytest

from pathassets.config import CONFIG_FILE, DEFAULT_TILING, Study, check_home, init_home
from pathassets.editing import add_recipes
from pathassets.errors import ConfigError


def test_a_new_home_has_a_commented_file_that_loads(tmp_path):
    made = init_home(tmp_path)
    assert {path.name for path in made} == {CONFIG_FILE, "dagster.yaml", "inbox"}
    assert init_home(tmp_path) == []
    study = Study(tmp_path)
    assert [recipe.key for recipe in study.recipes] == [f"{DEFAULT_TILING}/demo_vlm"]


def test_the_template_s_comments_are_the_defaults(tmp_path):
    """Every commented setting, uncommented, changes nothing."""
    plain, spelled = tmp_path / "plain", tmp_path / "spelled"
    init_home(plain)
    init_home(spelled)
    lines = (spelled / CONFIG_FILE).read_text().splitlines()
    wanted = (
        "name =", "inbox =", "automation", "cache_gb", "device", "workers", "memory", "stall", "slides_per_run", "method =",
        "mpp =", "min_", "overlap", "edge", "batch_size", "precision", "compile", "dtype", "max_bad", "methods", "variants",
        "resolution", "n_pcs", "n_neighbors", "dagster_url", "dashboard_url",
    )  # fmt: skip
    text = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and line[2:].startswith(wanted) else line
        for line in lines
        if 'name = "mine"' not in line
    )
    (spelled / CONFIG_FILE).write_text(text)
    assert text.count("\n# ") < len([line for line in lines if line.startswith("# ")])
    one, other = Study(plain), Study(spelled)
    assert one.model_dump(exclude={"home"}) == other.model_dump(exclude={"home"})


def test_the_environment_wins_but_a_named_home_is_the_home(tmp_path, monkeypatch):
    init_home(tmp_path)
    monkeypatch.setenv("PATHASSETS_DEVICE", "cpu")
    monkeypatch.setenv("PATHASSETS_TISSUE__METHOD", "entropy")
    monkeypatch.setenv("PATHASSETS_HOME", str(tmp_path / "elsewhere"))
    study = Study(tmp_path)
    assert (study.home, study.device, study.tissue.method) == (tmp_path, "cpu", "entropy")
    assert Study().home == tmp_path / "elsewhere"
    assert Study(tmp_path, device="cuda:1").device == "cuda:1"


def test_several_devices_and_the_share_of_memory_are_settings(tmp_path, monkeypatch):
    (tmp_path / CONFIG_FILE).write_text('[study]\ndevice = "cuda:0,cuda:1"\nmemory_share = 0.5\nstall_seconds = 7\n')
    study = Study(tmp_path)
    assert (study.device, study.memory_share, study.stall_seconds) == ("cuda:0,cuda:1", 0.5, 7)
    monkeypatch.setenv("PATHASSETS_DEVICE", "cuda:all")
    assert Study(tmp_path).device == "cuda:all"
    for wrong in ({"memory_share": 0}, {"memory_share": 1.1}, {"stall_seconds": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Study(tmp_path, **wrong)


def test_recipes_inherit_the_study_s_options(tmp_path):
    (tmp_path / CONFIG_FILE).write_text(
        """
        [text]
        terms = ["fat"]
        [domains]
        resolution = 0.7
        [[recipes]]
        encoder = "demo-vlm"
        [[recipes]]
        encoder = "resnet18"
        domains = {resolution = 0.3}
        """
    )
    first, second = Study(tmp_path).recipes
    assert (first.text.terms, first.domains.resolution, second.domains.resolution) == (("fat",), 0.7, 0.3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[study\n", "not valid TOML"),
        ("[study]\ndevcie = 'cpu'\n", "devcie"),
        ("[[recipes]]\ntiling = 'nowhere'\n", "nowhere"),
        ("[[recipes]]\nencoder = 'a'\n[[recipes]]\nencoder = 'a'\n", "two recipes"),
        ("[tissue]\nmpp = 'fine'\n", "tissue.mpp"),
    ],
)
def test_mistakes_are_named(tmp_path, text, says):
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(ConfigError, match=says):
        Study(tmp_path)


def test_asking_for_an_encoder_writes_it_down_once(tmp_path):
    init_home(tmp_path)
    key = "px256_mpp100/resnet18"
    for _ in range(2):
        assert add_recipes(tmp_path, ["resnet18"], tile_px=256, mpp=1.0, random_weights=True) == [key]
    text = (tmp_path / CONFIG_FILE).read_text()
    assert text.count('encoder = "resnet18"') == 1
    assert "# batch_size = 64" in text
    assert [recipe.key for recipe in Study(tmp_path).recipes] == [f"{DEFAULT_TILING}/demo_vlm", key]
    add_recipes(tmp_path, ["resnet18"], tile_px=256, mpp=1.0)
    assert [recipe.random_weights for recipe in Study(tmp_path).recipes] == [False, True]


def test_another_tiling_keeps_what_the_recipes_say(tmp_path):
    (tmp_path / CONFIG_FILE).write_text(
        """
        [tilings.wide]
        tile_px = 128
        mpp = 0.5
        overlap = 0.25
        [[recipes]]
        name = "mine"
        encoder = "demo-vlm"
        tiling = "wide"
        weights = "my.safetensors"
        """
    )
    assert add_recipes(tmp_path, [], tile_px=96) == ["px96_mpp050/mine"]
    first, second = Study(tmp_path).recipes
    assert second.weights == first.weights
    assert second.tiling.overlap == 0.25


@pytest.mark.parametrize("name", ["br[x]", "a?b"])
def test_a_home_that_reads_as_a_pattern_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="pattern"):
        check_home(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["study = 3", "recipes = 3", "tilings = 3", "[tilings]\na = 3", "[[recipes]]\nencoder = 3"]
)
def test_settings_of_the_wrong_kind_are_refused_in_words(tmp_path, text):
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(ConfigError):
        Study(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('study = "x"', r"study in .* is \"x\", which is no table .* Write \[study\]"),
        ("[tilings]\nx = 5", r"tilings.x in .* is 5, which is no table .* Write \[tilings.NAME\]"),
        ('recipes = "x"', r"recipes in .* is \"x\", which is no table .* Write \[\[recipes\]\]"),
        ("recipes = [5]", r"recipes in .* is 5, which is no table"),
        ('vectors = "mean"', r"vectors in .* which is no table"),
        ('[study]\ninbox = "inbox"', r'inbox: must be a list: write inbox = \["inbox"\]'),
        ("[tilings.a]\nmpp = -1", r"tilings.a: mpp: Input should be greater than 0"),
        ("[tilings.a]\nmpp = 1\ntile_pxx = 5", r"tilings.a: tile_pxx: is no setting; did you mean tile_px\?"),
        ('[[recipes]]\nencoder = "demo-vlm"\nweigths = "x"', r"recipe demo-vlm: weigths: .* did you mean weights\?"),
        ("[study]\nautomaton = true", r"automaton: is no setting; did you mean automation\?"),
        ("[tissue]\nmetod = 1", r"tissue.metod: is no setting; did you mean method\?"),
        ("[tilling.a]\nmpp = 1", r"tilling: is no setting; did you mean tilings\?"),
    ],
)
def test_a_mistake_is_told_in_the_words_of_the_file(tmp_path, text, says):
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(ConfigError, match=says):
        Study(tmp_path)


def test_a_store_of_an_unknown_kind_is_told_once(tmp_path):
    (tmp_path / CONFIG_FILE).write_text('[study]\nstore = "ftp://host/x"\n')
    with pytest.raises(ConfigError) as caught:
        Study(tmp_path)
    assert str(caught.value).count("[config_invalid]") == 1
    assert "Name a folder, or s3://bucket/prefix" in caught.value.remedy
