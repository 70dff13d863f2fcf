"""Licences: a study may allow some only, terms are told once before the first use, access is asked for before a night's run."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from huggingface_hub.errors import GatedRepoError

from pathassets.cli import doctor, running
from pathassets.config import Study
from pathassets.encoders import check_access, check_licence, get_card, licences, load_encoder
from pathassets.errors import ConfigError, EncoderError, Reason
from pathassets.steps.session import Session


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("uni", ()),
        ("h-optimus-0", ("Apache-2.0", "MIT")),
        ("h-optimus-0", ("commercial",)),
        ("uni", ("cc-by-nc-nd-4.0",)),
    ],
)
def test_what_a_study_allows_passes(name, allowed):
    check_licence(get_card(name), allowed)


@pytest.mark.parametrize(
    ("name", "allowed"), [("uni", ("Apache-2.0",)), ("uni", ("commercial",)), ("virchow", ("commercial",))]
)
def test_what_it_does_not_allow_is_refused(name, allowed):
    """Virchow's terms are unclear, which is not a yes."""
    with pytest.raises(EncoderError, match=f"{name} is under") as caught:
        check_licence(get_card(name), allowed)
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert "licences" in caught.value.remedy


def test_terms_are_told_once_and_only_where_there_are_any(caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(licences, "_told", set())
    for _ in range(2):
        licences.tell_terms(get_card("uni"))
        licences.tell_terms(get_card("h-optimus-0"))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("uni: weights under CC-BY-NC-ND-4.0 (no commercial use); accept the terms at")
    assert "Chen 2024" in said[0]


def test_terms_are_told_before_weights_are_used(caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(licences, "_told", set())
    network = load_encoder("kaiko-vits16", random_weights=True, device="cpu", depth=1)._networks.master
    assert "kaiko non-commercial" not in caplog.text, "untrained weights are nobody's"
    torch.save(network.state_dict(), tmp_path / "w.pth")
    load_encoder("kaiko-vits16", weights=tmp_path / "w.pth", device="cpu", depth=1)
    assert "kaiko non-commercial (no commercial use)" in caplog.text


# Access


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of one file, which asks nobody; `hub.refuse(error)` makes it refuse."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    there = SimpleNamespace(siblings=[SimpleNamespace(rfilename="pytorch_model.bin")])
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: there)
    monkeypatch.setattr("huggingface_hub.HfApi.auth_check", lambda *a, **k: None)

    def refuse(error: Exception) -> None:
        def answer(*args, **kwargs):
            raise error

        monkeypatch.setattr("huggingface_hub.HfApi.auth_check", answer)

    return SimpleNamespace(refuse=refuse)


def test_access_is_asked_for_without_fetching(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: pytest.fail("nothing is fetched"))
    assert check_access("uni").startswith(
        "MahmoodLab/UNI gives pytorch_model.bin; it is fetched when the run starts; CC-BY"
    )


def test_a_gate_that_is_closed_is_found_before_the_night(hub):
    hub.refuse(GatedRepoError("terms", response=MagicMock(status_code=403)))
    with pytest.raises(EncoderError, match="MahmoodLab/UNI is gated and this account has no access") as caught:
        check_access("uni")
    assert "https://huggingface.co/MahmoodLab/UNI" in caught.value.remedy
    assert caught.value.reason is Reason.WEIGHTS_MISSING


def test_a_hub_that_is_down_is_said_to_be(hub):
    hub.refuse(ConnectionError("no route"))
    with pytest.raises(EncoderError, match="cannot be fetched: ConnectionError"):
        check_access("uni")


def test_what_is_here_is_told_by_its_hash(hub, tmp_path):
    torch.save(
        load_encoder("timm/test_vit", random_weights=True, device="cpu")._networks.master.state_dict(),
        tmp_path / "w.pth",
    )
    assert len(check_access("timm/test_vit", weights=tmp_path / "w.pth").partition(";")[0]) == 16
    assert check_access("timm/test_vit", random_weights=True).startswith("random-")
    assert check_access("demo-vlm").endswith("(commercial use allowed)")


def test_weights_that_nobody_publishes_ask_for_a_file(hub):
    with pytest.raises(EncoderError, match="ctranspath has no weights on the hub") as caught:
        check_access("ctranspath")
    assert "github.com/Xiyue-Wang/TransPath" in caught.value.remedy


# In a study


@pytest.fixture
def home(tmp_path):
    (tmp_path / "pathassets.toml").write_text(
        '[study]\nlicences = ["commercial"]\n[[recipes]]\nencoder = "uni"\n[[recipes]]\nencoder = "demo-vlm"\n'
    )
    return tmp_path


def test_a_study_uses_no_weights_that_it_does_not_allow(home):
    session = Session(Study(home))
    uni, demo = session.study.recipes
    for use in (session.weights_sha256, session.encoder):
        with pytest.raises(EncoderError, match="uni is under CC-BY-NC-ND-4"):
            use(uni)
    assert len(session.weights_sha256(demo)) == 64
    assert session.weights_sha256(uni.model_copy(update={"random_weights": True})).startswith("random-")


def test_the_doctor_says_what_is_not_allowed_and_the_terms_of_what_is(home):
    found = {line.check: line for line in doctor.diagnose(Study(home))}
    refused = next(line for check, line in found.items() if check.endswith("/uni"))
    assert refused.status == "failed"
    assert "this study allows commercial only" in refused.finding
    assert (
        "commercial use allowed" in next(line for check, line in found.items() if check.endswith("/demo_vlm")).finding
    )


def test_a_recipe_can_pin_its_weights(tmp_path):
    right = Session(Study(tmp_path)).weights_sha256(Study(tmp_path).recipes[0])
    for pin, fits in ((right, True), (right[:12], True), ("0" * 64, False)):
        (tmp_path / "pathassets.toml").write_text(f'[[recipes]]\nencoder = "demo-vlm"\nweights_sha256 = "{pin}"\n')
        session = Session(Study(tmp_path))
        for use in (session.weights_sha256, session.encoder):
            if fits:
                use(session.study.recipes[0])
                continue
            with pytest.raises(EncoderError, match=f"{right[:16]}.*wants {pin[:16]}") as caught:
                use(session.study.recipes[0])
            assert caught.value.reason is Reason.WEIGHTS_MISMATCH
    assert (
        next(line for line in doctor.diagnose(Study(tmp_path)) if line.check.endswith("/demo_vlm")).status == "failed"
    )
    for pin in ("xyz", "abc"):
        (tmp_path / "pathassets.toml").write_text(f'[[recipes]]\nencoder = "demo-vlm"\nweights_sha256 = "{pin}"\n')
        with pytest.raises(ConfigError, match="weights_sha256"):
            Study(tmp_path)


def test_a_refused_run_leaves_no_settings_behind(tmp_path):
    request = running.Request(home=tmp_path / "study", encoders=("uni",), weights=tmp_path / "nope.pth")
    with pytest.raises(EncoderError):
        running.prepare(request)
    assert not (tmp_path / "study" / "pathassets.toml").exists()


def test_a_run_refuses_before_anything_is_written(home):
    settings = (home / "pathassets.toml").read_text()
    request = running.Request(home=home, encoders=("UNI",))
    with pytest.raises(EncoderError, match="uni is under"):
        running.prepare(request)
    assert (home / "pathassets.toml").read_text() == settings


def test_weights_behind_a_gate_say_how_to_get_through_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="weights of virchow2") as caught:
        load_encoder("virchow2", device="cpu")
    assert "https://huggingface.co/paige-ai/Virchow2" in caught.value.remedy
    assert "hf auth login" in caught.value.remedy
    assert "hf download paige-ai/Virchow2" in caught.value.remedy
    with pytest.raises(EncoderError, match="weights of h-optimus-0") as caught:
        load_encoder("h-optimus-0", device="cpu")
    assert "Accept the terms" not in caught.value.remedy


@pytest.mark.parametrize("allowed", [("Apache-2.0",), ("commercial",)])
def test_what_ships_with_the_package_is_always_allowed(allowed):
    check_licence(get_card("demo-vlm"), allowed)


def test_the_doctor_allows_what_a_run_allows_untrained_networks_of_any_licence(tmp_path):
    (tmp_path / "pathassets.toml").write_text(
        '[study]\nlicences = ["MIT"]\n[[recipes]]\nencoder = "ctranspath"\nrandom_weights = true\n'
    )
    study = Study(tmp_path)
    [line] = [line for line in doctor.diagnose(study) if line.check.startswith("weights of")]
    assert line.status == "ok"
    Session(study).weights_sha256(study.recipes[0])
