"""What an export promises of its folder: whole or not at all, never over something else, never outside."""

from __future__ import annotations

import pytest

from pathassets.errors import ConfigError
from pathassets.exports.files import Target


def _folder_of(text: str):
    def make(path):
        (path / "below").mkdir(parents=True)
        (path / "below" / "file").write_text(text)

    return make


def _everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("make", [lambda text: lambda path: path.write_text(text), _folder_of], ids=["file", "folder"])
def test_what_says_the_same_is_left_alone_and_what_does_not_needs_force(tmp_path, make):
    out = tmp_path / "out"
    first = Target(out)
    first.put("a/thing", make("one"))
    stamp = (out / "a" / "thing").stat().st_mtime_ns

    again = Target(out)
    again.put("a/thing", make("one"))
    assert (first.written, again.written, again.unchanged) == (["a/thing"], [], ["a/thing"])
    assert (out / "a" / "thing").stat().st_mtime_ns == stamp

    with pytest.raises(ConfigError, match="something else") as refused:
        Target(out).put("a/thing", make("two"))
    assert "--force" in refused.value.remedy
    assert first._root.local("a/thing").stat().st_mtime_ns == stamp

    Target(out, force=True).put("a/thing", make("two"))
    found = out / "a" / "thing"
    assert (found / "below" / "file" if found.is_dir() else found).read_text() == "two"
    assert not [name for name in _everything(out) if name.endswith(".tmp")]


def test_a_file_takes_the_place_of_a_folder_only_by_force(tmp_path):
    Target(tmp_path).put("thing", _folder_of("one"))
    with pytest.raises(ConfigError):
        Target(tmp_path).put_bytes("thing", b"two")
    Target(tmp_path, force=True).put_bytes("thing", b"two")
    assert (tmp_path / "thing").read_bytes() == b"two"
    assert _everything(tmp_path) == ["thing"]


@pytest.mark.parametrize("begin", [_folder_of("half"), lambda path: path.write_text("half")], ids=["folder", "file"])
def test_what_fails_on_its_way_leaves_nothing(tmp_path, begin):
    def broken(path):
        begin(path)
        raise ValueError("broke")

    target = Target(tmp_path)
    with pytest.raises(ValueError, match="broke"):
        target.put("a/thing", broken)
    assert _everything(tmp_path) == ["a"]
    assert target.written == []


@pytest.mark.parametrize("key", ["../out", "/etc/passwd", "a/../../b", "a//b", "", ".", "a\\b", "a\0b"])
def test_no_key_leads_out_of_the_folder(tmp_path, key):
    out = tmp_path / "deep" / "out"
    with pytest.raises(ValueError):
        Target(out).put_bytes(key, b"x")
    assert _everything(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_told_in_the_words_of_this_command(tmp_path):
    (tmp_path / "file").write_text("in the way")
    from pathassets.errors import StoreError

    with pytest.raises(StoreError) as refused:
        Target(tmp_path / "file").put_bytes("a/thing", b"x")
    assert "--home" not in refused.value.remedy
