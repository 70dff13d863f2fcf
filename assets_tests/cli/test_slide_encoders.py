"""GigaPath by the command line: two files, both stages in one command through Dagster, or one after the other; refusals first."""

from __future__ import annotations

import json

import pytest
import tomlkit
from support import gigapath

from pathassets.cli import doctor, reporting, running
from pathassets.config import CONFIG_FILE, Study
from pathassets.encoders.weights import file_sha256
from pathassets.errors import ConfigError, EncoderError, Reason
from pathassets.slides.synthetic import synthetic_slide


@pytest.fixture(scope="module")
def narrow():
    with pytest.MonkeyPatch.context() as patch:
        gigapath.narrow(patch)
        yield


@pytest.fixture(scope="module")
def files(narrow, tmp_path_factory):
    return gigapath.weight_files(tmp_path_factory.mktemp("weights"))


def asked(home, files, **more) -> running.Request:
    tiles, slide = files
    told = {"encoders": ("gigapath",), "weights": tiles, "slide_encoder": "gigapath-slide", "slide_weights": slide}
    return running.Request(home=home, **{**told, "tile_px": 256, "mpp": 0.5, "device": "cpu", "as_json": True, **more})


@pytest.mark.e2e
def test_one_command_does_both_stages_and_another_stage_alone_is_enough_later(files, tmp_path, capsys):
    slide = tmp_path / "s.tiff"
    synthetic_slide(slide, seed=11, width_px=1280, height_px=1280)
    home = tmp_path / "study"
    only = 'key:"slide" or key:"tissue" or key:"*/tiles" or key:"*/embeddings" or key:"*/slide_vector"'
    assert running.run_study(asked(home, files, paths=(str(slide),), select=only)) == 0
    recipe = tomlkit.parse((home / CONFIG_FILE).read_text())["recipes"][0]
    assert recipe["vectors"] == {"methods": ["mean", "gigapath-slide"], "weights": {"gigapath-slide": str(files[1])}}
    study = Study(home)
    embedded = study.scan("embeddings").collect().row(0, named=True)
    found = study.scan("slide_vectors").collect()
    encoded = found.filter(method="gigapath-slide").row(0, named=True)
    assert embedded["weights_sha256"] == file_sha256(files[0])
    assert encoded["weights_sha256"] == file_sha256(files[1])
    assert (len(encoded["vector"]), encoded["random_weights"]) == (768, False)
    assert set(found["method"]) == {"mean", "gigapath-slide"}
    # The second stage alone: no pixel is read again, no tile embedded.
    slide.rename(slide.with_suffix(".gone"))
    study_file = (home / CONFIG_FILE).read_text()
    (home / CONFIG_FILE).write_text(study_file.replace('["mean", "gigapath-slide"]', '["std", "gigapath-slide"]'))
    again = running.Request(home=home, select='key:"*/slide_vector"', device="cpu", as_json=True)
    running.run_study(again)
    capsys.readouterr()
    assert set(study.scan("slide_vectors").collect()["method"]) == {"std", "gigapath-slide"}
    assert study.scan("embeddings").collect()["digest"][0] == embedded["digest"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tile_px": 224}, Reason.TILING_MISMATCH),
        ({"mpp": 1.0}, Reason.TILING_MISMATCH),
        ({"encoders": ("demo-vlm",), "weights": None}, Reason.ENCODER_MISMATCH),
        ({"slide_encoder": "titan"}, Reason.ENCODER_UNKNOWN),
        ({"slide_encoder": "gigapath-slid"}, Reason.ENCODER_UNKNOWN),
        ({"slide_encoder": None}, Reason.CONFIG_INVALID),
        ({"slide_weights": "FILE"}, Reason.WEIGHTS_MISSING),
        ({"slide_weights": "TILES"}, Reason.WEIGHTS_MISMATCH),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(files, tmp_path, change, reason):
    """Weights of the tiles' network in the slide's place, too."""
    running.init_home(tmp_path)
    before = (tmp_path / CONFIG_FILE).read_text()
    places = {"FILE": tmp_path / "gone.pth", "TILES": files[0]}
    change = {key: places.get(value, value) if isinstance(value, str) else value for key, value in change.items()}
    with pytest.raises((ConfigError, EncoderError)) as caught:
        running.prepare(asked(tmp_path, files, **change))
    assert caught.value.reason is reason
    assert caught.value.remedy
    assert (tmp_path / CONFIG_FILE).read_text() == before
    assert not (tmp_path / "store").exists()


def test_the_doctor_looks_at_both_files(files, tmp_path):
    running.init_home(tmp_path)
    running.prepare(asked(tmp_path, files))
    found = {line.check: line for line in doctor.diagnose(Study(tmp_path)) if "gigapath" in line.check}
    assert found["weights of px256_mpp050/gigapath"].finding.startswith(file_sha256(files[0])[:16])
    assert found["gigapath-slide of px256_mpp050/gigapath"].finding.startswith(file_sha256(files[1])[:16])
    text = (tmp_path / CONFIG_FILE).read_text().replace(str(files[1]), str(tmp_path / "gone.pth"))
    (tmp_path / CONFIG_FILE).write_text(text)
    found = {line.check: line for line in doctor.diagnose(Study(tmp_path)) if "gigapath" in line.check}
    line = found["gigapath-slide of px256_mpp050/gigapath"]
    assert (line.status, line.fix != "") == ("failed", True)


def test_encoders_lists_slide_encoders_too(capsys):
    reporting.print_encoders(None, as_json=True)
    rows = {(row["kind"], row["name"]): row for row in json.loads(capsys.readouterr().out)}
    assert rows["slide", "gigapath-slide"]["takes"] == ["gigapath"]
    assert rows["slide", "titan"]["weights"] == "cannot run"
    assert rows["tile", "gigapath"]["dim"] == 1536
    reporting.print_encoders("titan", as_json=False)
    assert "its network is published only as code" in capsys.readouterr().out
    reporting.print_encoders("chief", as_json=True)
    assert {row["kind"] for row in json.loads(capsys.readouterr().out)} == {"tile", "slide"}
    reporting.print_encoders(None, as_json=False)
    assert "Slide encoders" in capsys.readouterr().out
