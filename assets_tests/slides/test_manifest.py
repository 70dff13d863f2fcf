"""slides.csv: what users know, read strictly and without surprises."""

from __future__ import annotations

import pytest

from pathassets.errors import ConfigError, Reason
from pathassets.slides import read_manifest
from pathassets.slides.manifest import RESERVED, infer_column
from pathassets.store import schema


def write(tmp_path, content: str | bytes):
    path = tmp_path / "slides.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(tmp_path, content) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_manifest(write(tmp_path, content))
    assert caught.value.reason is Reason.MANIFEST_INVALID
    assert caught.value.remedy
    return caught.value


def test_no_manifest_and_an_empty_one_say_nothing(tmp_path):
    for manifest in (
        read_manifest(tmp_path / "slides.csv"),
        read_manifest(write(tmp_path, "")),
        read_manifest(write(tmp_path, "path,mpp\n")),
    ):
        assert manifest.rows == ()
        assert manifest.paths() == []
        assert manifest.lookup("/x/a.svs") == {}


def test_rows_by_path_by_relative_path_and_by_name(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.svs").touch()
    manifest = read_manifest(write(tmp_path, "path,mpp\n/data/a.svs,0.25\nin/b.svs,0.5\nc.svs,0.3\n"))
    assert manifest.lookup("/data/a.svs")["mpp"] == 0.25
    assert manifest.lookup(tmp_path / "in" / "b.svs")["mpp"] == 0.5
    assert manifest.lookup(tmp_path / "in" / ".." / "in" / "b.svs")["mpp"] == 0.5
    assert manifest.lookup("/elsewhere/c.svs")["mpp"] == 0.3
    assert manifest.lookup("/elsewhere/a.svs") == {}
    assert manifest.lookup("/elsewhere/b.svs") == {}
    assert [str(path) for path in manifest.paths()] == ["/data/a.svs", str(tmp_path / "in" / "b.svs")]


def test_a_name_beside_the_manifest_is_that_file_alone(tmp_path):
    (tmp_path / "a.svs").touch()
    manifest = read_manifest(write(tmp_path, "path,mpp\na.svs,0.25\n"))
    assert manifest.lookup(tmp_path / "a.svs")["mpp"] == 0.25
    assert manifest.lookup("/elsewhere/a.svs") == {}
    assert manifest.paths() == [tmp_path / "a.svs"]


def test_a_link_to_a_slide_has_its_row(tmp_path):
    (tmp_path / "real.svs").touch()
    (tmp_path / "link.svs").symlink_to(tmp_path / "real.svs")
    manifest = read_manifest(write(tmp_path, f"path,mpp\n{tmp_path}/real.svs,0.25\n"))
    assert manifest.lookup(tmp_path / "link.svs")["mpp"] == 0.25


def test_all_columns(tmp_path):
    text = (
        "path,MPP,Patient,cohort,labels,notes,tissue_mask,Age,score,code,Block No\n"
        'a.svs,0.25,17,A,x;y,"says ""hi"",",m.png,61,0.5,007,B1\n'
        "b.svs,,18,,,,,,1,12,\n"
    )
    rows = read_manifest(write(tmp_path, text)).rows
    assert rows[0] == {
        "path": "a.svs", "mpp": 0.25, "patient": "17", "cohort": "A", "labels": "x;y", "notes": 'says "hi",',
        "tissue_mask": "m.png", "Age": 61, "score": 0.5, "code": "007", "Block_No": "B1",
    }  # fmt: skip
    assert rows[1] == {
        "path": "b.svs", "mpp": None, "patient": "18", "cohort": None, "labels": None, "notes": None,
        "tissue_mask": None, "Age": None, "score": 1.0, "code": "12", "Block_No": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", "", "-3"], [1, None, -3]),
        (["1", "2.5", "1e3"], [1.0, 2.5, 1000.0]),
        (["0.5", ".25", "-0.1"], [0.5, 0.25, -0.1]),
        (["007", "1"], ["007", "1"]),
        (["00.5", "1"], ["00.5", "1"]),
        (["1", "x"], ["1", "x"]),
        (["nan", "1"], ["nan", "1"]),
        (["1e999", "1"], ["1e999", "1"]),
        (["9223372036854775807"], [9223372036854775807]),
        (["9223372036854775808"], ["9223372036854775808"]),
        (["", ""], [None, None]),
        (["true"], ["true"]),
        (["1-2"], ["1-2"]),
        (["١"], ["١"]),
    ],
)
def test_types_of_columns(texts, values):
    found = infer_column(texts)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_and_line_ends(tmp_path, encoding, end):
    text = end.join(["path,mpp,ort", "ä.svs,0.25,Köln", "", ",,", "b.svs,0.5,Bonn", ""])
    rows = read_manifest(write(tmp_path, text.encode(encoding))).rows
    assert [(row["path"], row["mpp"], row["ort"]) for row in rows] == [("ä.svs", 0.25, "Köln"), ("b.svs", 0.5, "Bonn")]


def test_spreadsheets_of_other_countries(tmp_path):
    assert read_manifest(write(tmp_path, "path;mpp;cohort\na.svs;0,25;A\n")).rows[0]["mpp"] == 0.25
    assert read_manifest(write(tmp_path, "path\tmpp\na, b.svs\t0.25\n")).rows[0]["path"] == "a, b.svs"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("file,mpp\na.svs,1\n", "no column path"),
        ("path,mpp\na.svs,0.25\nb.svs,fast\n", "line 3"),
        ("path,mpp\na.svs,0\n", "line 2"),
        ("path,mpp\na.svs,-0.5\n", "line 2"),
        ("path,mpp\na.svs,nan\n", "line 2"),
        ("path,mpp\na.svs,1e9\n", "line 2"),
        ("path,mpp\na.svs,0.005\n", "line 2"),
        ("path,mpp\na.svs,inf\n", "line 2"),
        ('path,mpp\na.svs,"0,25"\n', "line 2"),
        ("path,mpp\n,0.25\n", "line 2"),
        ("path,mpp\na.svs,0.25\n\na.svs,0.5\n", "line 4"),
        ("path,mpp\na.svs,0.25,x\n", "line 2"),
        ("path,mpp,mpp\na.svs,1,1\n", "twice"),
        ("path,Grade,grade\na.svs,1,1\n", "twice"),
        ("path,,x\na.svs,1,1\n", "without a name"),
        ("path,vendor\na.svs,Aperio\n", "vendor"),
        ("path,Slide_ID\na.svs,1\n", "slide_id"),
        ('path,mpp\n"a.svs,0.25\n', "no table"),
        ("path\nä.svs\n".encode("latin-1"), "line 2"),
        (b"path\na\0b.svs\n", "line 2"),
        (b"PK\x03\x04\x14\0\x06\0\xff\xfe", "not UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, content, said):
    assert said in refusal(tmp_path, content).message


def test_lines_are_counted_as_editors_count_them(tmp_path):
    content = 'path,notes,mpp\na.svs,"two\nlines",0.25\nb.svs,,bad\n'
    assert "line 4" in refusal(tmp_path, content).message


def test_rows_that_say_the_same_twice_are_one(tmp_path):
    manifest = read_manifest(write(tmp_path, f"path,mpp\n/d/a.svs,0.25\n/d/../d/a.svs,0.250\n{tmp_path}/b.svs,1\n"))
    assert len(manifest.rows) == 2


def test_a_folder_is_no_manifest(tmp_path):
    (tmp_path / "slides.csv").mkdir()
    with pytest.raises(ConfigError):
        read_manifest(tmp_path / "slides.csv")


def test_columns_of_the_table_slides_cannot_be_overwritten():
    """`path` and `mpp` are the manifest's to give; whatever else the table has must be refused."""
    assert {name.lower() for name in schema.TABLES["slides"].names} - {"path", "mpp"} <= RESERVED


def test_the_readers_own_paths_are_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.svs").touch()
    manifest = read_manifest(write(tmp_path, "path,mpp\n./a.svs,0.25\n"))
    assert manifest.lookup("a.svs")["mpp"] == 0.25
