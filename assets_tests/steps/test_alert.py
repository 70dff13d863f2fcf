"""Alerts: what is sent, to whom, and that nothing a server does can hold up or break the sender."""

from __future__ import annotations

import socket

import pytest
from support.listener import listening

from pathassets.config import Study
from pathassets.errors import ConfigError
from pathassets.steps import alert
from pathassets.steps.alert import check_webhook, failed_run, post
from pathassets.steps.session import Session

SECRET = "T0K3N"


@pytest.fixture(autouse=True)
def without_a_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def test_the_payload_arrives_as_it_is():
    with listening() as server:
        assert post(f"{server.url}/hook?{SECRET}", {"event": "run_failed", "error": "µ"}) is None
    assert server.posts == [(f"/hook?{SECRET}", {"event": "run_failed", "error": "µ"})]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_answer_that_points_elsewhere_is_not_followed(status):
    with listening() as other, listening(status=status, location=f"{other.url}/elsewhere") as server:
        problem = post(f"{server.url}/{SECRET}", {})
    assert problem == f"it answered {status}"
    assert other.posts == []


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_refusal_is_told_without_the_address(status):
    with listening(status=status) as server:
        problem = post(f"{server.url}/{SECRET}", {})
    assert problem == f"it answered {status}"


def test_nobody_there_and_somebody_who_never_answers(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "cannot be reached" in str(post(f"http://127.0.0.1:{port}/{SECRET}", {}))
    monkeypatch.setattr(alert, "TIMEOUT_SECONDS", 0.2)
    with listening(delay=2.0) as server:
        assert post(f"{server.url}/{SECRET}", {}) is not None


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "host/x", "http://", "https://[::1/x", f"javascript:{SECRET}", ""]
)
def test_only_web_addresses_are_taken(url):
    with pytest.raises(ConfigError) as caught:
        check_webhook(url)
    assert SECRET not in str(caught.value)
    assert post(url, {}) is not None


def test_an_odd_address_never_raises_and_is_never_repeated():
    for url in (f"http://user:{SECRET}@127.0.0.1:1/x", f"http://127.0.0.1:99999/{SECRET}", f"http://a b/{SECRET}\n"):
        problem = post(url, {})
        assert problem
        assert SECRET not in problem


def test_slides_of_which_nothing_is_recorded_are_named_all_the_same(tmp_path):
    session = Session(Study(tmp_path))
    ids = [f"slide-{n:08x}" for n in range(60)]
    payload = failed_run(session, run_id="r", job="slides", error="e", slide_ids=ids, n_slides=200)
    assert payload["n_slides_failed"] == 200
    assert payload["slides_failed"] == [{"slide_id": slide_id} for slide_id in ids[:50]]
