"""Reports: whole, offline, and deaf to what hostile names would like to say."""

from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser

import polars as pl
import pytest
from exports.conftest import Made
from PIL import Image
from typer.testing import CliRunner

from pathassets.cli.main import app
from pathassets.config import Study
from pathassets.errors import ConfigError, SlideError
from pathassets.exports import pictures
from pathassets.figures import rulers
from pathassets.figures.named_map import named_map
from pathassets.report import cohort_slides, cohort_tiles, crops
from pathassets.report.cohort import cohort_report
from pathassets.report.page import Cell, Picture, Section, Table, facts, html
from pathassets.report.slide import slide_report
from pathassets.steps.session import Session


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("study"))


class Looked(HTMLParser):
    """What a browser would find: tags, addresses, text by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.addresses, self.open, self.text, self.policy = [], [], [], {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "data", "poster")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"]

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.text.setdefault(self.open[-1] if self.open else "", []).append(data)

    def said(self, tag):
        return " ".join(self.text.get(tag, []))


def _check_offline(text: str) -> Looked:
    looked = Looked(text)
    assert {"script", "link", "iframe", "object", "embed", "base", "form"}.isdisjoint(looked.tags)
    assert looked.addresses
    assert all(address.startswith("data:image/webp;base64,") for address in looked.addresses)
    assert not re.search(r"url\(|@import", text)
    assert looked.policy.startswith("default-src 'none'")
    for address in looked.addresses:
        Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).verify()
    return looked


def test_a_slides_report_tells_everything_and_asks_nobody(made: Made):
    text = slide_report(made.session, made.slide_id)
    looked = _check_offline(text)
    heads = looked.said("h2") + looked.said("h3")
    for what in ("The slide", "deserves a look", made.recipe.key, "leiden", "utag", "Quality", "What made it"):
        assert what in heads
    for term in made.features.terms:
        assert f"look most like: {term}" in heads
    cells = looked.said("td")
    for digest in (made.features.row["digest"], made.features.row["weights_sha256"]):
        assert digest in cells
    for label in made.table("domain_summary")["label"].drop_nulls():
        assert label in cells
    n_domains = len(made.table("domain_summary"))
    n_terms = len(made.features.terms)
    assert len(looked.addresses) >= 2 + 2 + n_terms + n_domains + n_terms
    assert str(made.home) not in text, "a path may tell names"
    assert len(text) < 3_000_000


def test_the_best_tiles_of_a_term_are_the_best(made: Made):
    text = Looked(slide_report(made.session, made.slide_id)).said("figcaption")
    scores = made.table("text_scores").filter(pl.col("term") == "adipose").sort("probability", descending=True)
    best = scores.row(0, named=True)
    assert f"tile {best['tile_id']}, {best['probability']:.2f}" in text


def test_a_study_s_report_has_every_slide_and_every_problem(made: Made):
    looked = _check_offline(cohort_report(made.session))
    cells = looked.said("td")
    for slide_id in (made.slide_id, made.bad_id):
        assert slide_id in cells
    assert "not_a_slide" in cells
    assert made.features.row["weights_sha256"] in cells
    assert str(made.home) not in cohort_report(made.session)


def test_a_slide_that_failed_has_a_report_of_why(made: Made):
    text = slide_report(made.session, made.bad_id)
    assert "not_a_slide" in text
    assert "has no embeddings" in text
    assert str(made.home) not in text, "messages name files; a report does not"


def test_a_report_needs_no_slide_file(made: Made, tmp_path):
    shutil.copytree(made.home, tmp_path / "study")
    session = Session(Study(tmp_path / "study"))
    row = session.tables.read("slides", made.slide_id).with_columns(path=pl.lit("/gone/x.tiff"))
    session.tables.write("slides", row, slide_id=made.slide_id)
    text = slide_report(session, made.slide_id)
    looked = _check_offline(text)
    assert "file_missing" in text
    assert "leiden" in looked.said("h3")


@pytest.fixture
def labelled(made: Made, tmp_path) -> Session:
    """The study with labels, in a folder whose name nobody is to read, and an own copy of its store."""
    shutil.copytree(made.home, tmp_path / "study")
    session = Session(Study(tmp_path / "study"))
    row = session.tables.read("slides", made.slide_id)
    told = row.with_columns(
        patient=pl.lit("P007"), diagnosis=pl.lit("carcinoma"), tissue_mask=pl.lit("/m/muster/a.png")
    )
    session.tables.write("slides", told.with_columns(path=pl.lit("/lab/muster/good.tiff")), slide_id=made.slide_id)
    return session


def test_reports_show_labels_and_never_a_path_or_a_manifest_s_row(labelled, made: Made):
    own, study = slide_report(labelled, made.slide_id), cohort_report(labelled)
    for text in (own, study):
        cells = Looked(text).said("td")
        assert "P007" in cells
        assert "carcinoma" in cells
        assert not re.search("muster|manifest|/lab/", text)
    assert "good.tiff" in Looked(own).said("td")


def test_the_chain_can_be_followed_from_step_to_step(made: Made):
    cells = Looked(slide_report(made.session, made.slide_id)).said("td")
    outcomes = made.table("outcomes", made.slide_id)
    results = dict(outcomes.select("step", "result_digest").iter_rows())
    assert f"slide = {results['slide']}" in cells
    assert f"tiles = {results['tiles']}" in cells
    assert f"embeddings = {results['embeddings']}" in cells
    for digest in (*results.values(), *outcomes["digest"]):
        assert digest in cells


def test_numbers_have_units_and_names_are_for_people(made: Made):
    looked = Looked(slide_report(made.session, made.slide_id))
    heads, cells, captions = looked.said("th"), looked.said("td"), looked.said("figcaption")
    assert "share of tiles, %" in heads
    assert "contiguity, %" in heads
    assert "n_bad_tiles" not in cells
    assert "text_adipose" not in captions
    assert "looks like: adipose" in captions
    assert "`" not in " ".join(value for values in looked.text.values() for value in values if "`pathassets" in value)
    assert "pathassets explain" in looked.said("code")


def test_every_tile_and_every_picture_of_a_slide_has_a_ruler(made: Made, monkeypatch):
    ruled = []
    real = rulers.with_ruler
    for module in (crops, pictures):
        monkeypatch.setattr(module, "with_ruler", lambda image, scale: ruled.append(scale) or real(image, scale))
    looked = Looked(slide_report(made.session, made.slide_id))
    assert len(ruled) == len(looked.addresses)
    assert all(scale > 0 for scale in ruled)


def test_a_study_s_report_has_quality_domains_tiles_and_what_made_it(made: Made):
    looked = _check_offline(cohort_report(made.session))
    heads, cells = looked.said("h2") + looked.said("h3"), looked.said("td")
    for what in ("Slides", "Quality", "deserves a look", "Domains of each slide (leiden)", "What made it", "Recipes"):
        assert what in heads
    for term in made.features.terms:
        assert f"Tiles of all slides that look most like: {term}" in heads
    assert "inked, %" in looked.said("th")
    assert looked.said("figcaption").count(made.slide_id) > len(made.features.terms)
    assert f"{made.table('outcomes')['created_at'].max():%Y-%m-%d %H:%M:%S} UTC" in looked.said("p")
    assert "torch" in cells


def test_a_large_study_s_report_says_what_it_leaves_out(made: Made, monkeypatch):
    whole = len(Looked(cohort_report(made.session)).addresses)
    for name, value in (("MAX_PICTURES", 0), ("MAX_ROWS", 1), ("MAX_DOMAIN_ROWS", 2)):
        monkeypatch.setattr(cohort_slides, name, value)
    monkeypatch.setattr(cohort_tiles, "MAX_GROUPS", 1)
    looked = _check_offline(cohort_report(made.session))
    assert len(looked.addresses) < whole
    said = looked.said("p")
    assert "The first 1 of 2 rows" in said
    assert "The first 0 of 2 pictures" in said
    assert f"The first 1 of {len(made.features.terms)} are shown" in said


def test_a_map_names_every_slide_that_has_room_and_says_which_have_none():
    apart = pl.DataFrame({"slide_id": ["a-1", "b-2", "c-3"], "x": [0.0, 0.02, 1.0], "y": [0.0, 0.0, 1.0]})
    assert named_map(apart, "pca")[1] == []
    crowd = pl.DataFrame(
        {"slide_id": [f"slide-{i}" for i in range(40)], "x": [i * 1e-3 for i in range(39)] + [1.0], "y": [0.0] * 40}
    )
    unnamed = named_map(crowd, "pca")[1]
    assert unnamed
    assert set(unnamed) < set(crowd["slide_id"])
    many = pl.DataFrame({"slide_id": [f"s{i}" for i in range(61)], "x": [i * 1.0 for i in range(61)], "y": [0.0] * 61})
    assert len(named_map(many, "pca")[1]) == 61


def test_the_same_results_give_the_same_report(made: Made):
    assert slide_report(made.session, made.slide_id) == slide_report(made.session, made.slide_id)
    assert cohort_report(made.session) == cohort_report(made.session)


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }}",
    "{% raw %}",
    "</style><script>",
    "'`$\\",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_every_value_is_escaped_wherever_it_stands(text):
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "WEBP")
    image = picture.getvalue()
    section = Section(text, text, Table((text,), [[Cell(text, colour=text, picture=image)]]), [Picture(image, text)])
    page = html(text, [section, Section("x", table=facts({text: text}))], text)
    looked = _check_offline(page)
    found = [value for values in looked.text.values() for value in values]
    assert sum(text in value for value in found) >= 8
    assert set(looked.tags) <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td",
        "span", "img", "figure", "figcaption", "div",
    }  # fmt: skip


def test_terms_and_labels_of_a_study_are_escaped(made: Made, tmp_path):
    shutil.copytree(made.home, tmp_path / "study")
    session = Session(Study(tmp_path / "study"))
    evil = "<script>alert(1)</script>"
    for table in ("domains", "domain_summary"):
        rows = session.tables.read(table, made.slide_id, made.part).with_columns(label=pl.lit(evil))
        session.tables.write(table, rows, slide_id=made.slide_id, part=made.part)
    rows = session.tables.read("text_scores", made.slide_id, made.part)
    rows = rows.with_columns(term=pl.col("term").replace("adipose", evil))
    session.tables.write("text_scores", rows, slide_id=made.slide_id, part=made.part)
    for text in (slide_report(session, made.slide_id), cohort_report(session)):
        assert "script" not in _check_offline(text).tags
        assert "&lt;script&gt;" in text


def _run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_one_file_and_never_over_another(made: Made, tmp_path):
    for arguments, name in ((("good",), "slide.html"), (("--cohort",), "cohort.html")):
        path = tmp_path / name
        command = ("report", *arguments, "--to", path, "--home", made.home)
        assert _run(*command).exit_code == 0
        assert "unchanged" in _run(*command).stdout
        path.write_text("mine")
        assert isinstance(_run(*command).exception, ConfigError)
        assert path.read_text() == "mine"
        assert _run(*command, "--force").exit_code == 0
        _check_offline(path.read_text())


def test_what_cannot_be_meant_is_refused(made: Made, tmp_path):
    path = tmp_path / "x.html"
    for arguments in ((), ("good", "--cohort"), ("nobody",)):
        assert isinstance(_run("report", *arguments, "--to", path, "--home", made.home).exception, ConfigError)
    assert isinstance(
        _run("report", "good", "--to", made.home / "store" / "x.html", "--home", made.home).exception, ConfigError
    )
    assert not path.exists()


def test_a_slide_of_which_nothing_is_known_yet_is_told(made: Made, tmp_path):
    shutil.copytree(made.home, tmp_path / "study")
    shutil.rmtree(tmp_path / "study" / "store" / "tables" / "outcomes" / f"slide_id={made.slide_id}")
    with pytest.raises(SlideError, match="nothing about"):
        slide_report(Session(Study(tmp_path / "study")), made.slide_id)
