"""What docs/security.md says, as far as it can be seen in the source or tried on many random names.

The statements of that page name their tests; a test here looks whether those exist.
"""

from __future__ import annotations

import ast
import random
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from pathassets.recipes import slug
from pathassets.slides.identity import make_slide_id
from pathassets.store import layout
from pathassets.store.local_root import LocalRoot

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "pathassets").rglob("*.py"))
NASTY = ["..", ".", "~", "/", "\\", "\0", "\n", "%2e%2e", "$(reboot)", "`id`", "'; DROP TABLE slides; --", "\u202e", "\ud800",
         "é", "＃", "CON", "-rf", "*", "?", "[a]", "{b}", ":", "|", "<", ">", '"', " ", ".svs", "slide_id=", "a" * 300]  # fmt: skip


def hostile_texts(n: int, seed: int) -> Iterator[str]:
    """`n` texts put together from what has broken programs before, and from random characters."""
    pick = random.Random(seed)
    for _ in range(n):
        parts = [
            pick.choice([*NASTY, *string.printable, chr(pick.randrange(1, 0xD800))]) for _ in range(pick.randint(1, 8))
        ]
        yield "".join(parts)


def test_no_name_of_a_file_leads_out_of_the_store(tmp_path):
    root = LocalRoot(tmp_path / "store")
    content = "0123456789abcdef" * 4
    for text in hostile_texts(3000, seed=1):
        name = text.replace("/", "").replace("\0", "") or "x"
        slide_id = make_slide_id(f"/slides/{name}", content)
        assert re.fullmatch(r"[a-z0-9][a-z0-9_.\-]*-[0-9a-f]{8,}", slide_id), name
        keys = (
            layout.table_key("tiles", slide_id, "small"),
            layout.array_folder(slide_id, content),
            layout.tissue_labels_key(slide_id),
        )
        for key in keys:
            assert root.local(key).is_relative_to(root.path), key
            assert ".." not in root.local(key).parts


def test_no_key_leads_out_of_the_store(tmp_path):
    root = LocalRoot(tmp_path / "store")
    refused = 0
    for text in hostile_texts(3000, seed=2):
        try:
            path = root.local(text)
        except ValueError:
            refused += 1
            continue
        assert path.is_relative_to(root.path)
        assert ".." not in path.parts
        assert path != root.path
    assert refused > 300, "some of them must be refused, or the texts are not hostile"


def test_no_part_of_a_key_takes_a_hostile_text():
    for text in hostile_texts(3000, seed=3):
        for make in (
            lambda t: layout.table_key(t, None),
            lambda t: layout.table_key("tiles", t),
            lambda t: layout.table_key("tiles", "slide-00000000", t),
            lambda t: layout.array_folder("slide-00000000", t),
            lambda t: layout.recipe_part(t),
        ):
            try:
                key = make(text)
            except ValueError:
                continue
            assert not set(key) & set("\\\0\n*?[]'\"`$~ "), key
            assert ".." not in key.split("/")


def test_names_of_encoders_become_plain_words():
    assert all(re.fullmatch(r"[a-z0-9_]+", slug(text)) for text in hostile_texts(2000, seed=4))


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the package, with where it is."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def name_of(node: ast.expr) -> str:
    return ast.unparse(node)


def keyword(call: ast.Call, name: str) -> object:
    return next(
        (ast.literal_eval(k.value) for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None
    )


FORBIDDEN = re.compile(
    r"^(eval|exec|compile|__import__|os\.system|os\.popen|pickle\.\w+|marshal\.\w+|shelve\.\w+|dill\.\w+|joblib\.load|"
    r"yaml\.(unsafe_|full_)?load|subprocess\.(getoutput|getstatusoutput)|shutil\.unpack_archive|tarfile\.\w+|zipfile\.\w+)$"
)


def test_nothing_runs_code_that_lies_in_a_file_and_no_archive_is_opened():
    found = [(where, name_of(call.func)) for where, call in calls() if FORBIDDEN.match(name_of(call.func))]
    assert found == []


def test_arrays_weights_and_shells_are_opened_the_safe_way_only():
    for where, call in calls():
        name = name_of(call.func)
        if name == "torch.load":
            assert keyword(call, "weights_only") is True, where
        if name == "np.load":
            assert keyword(call, "allow_pickle") is False, where
        assert keyword(call, "shell") is not True, where
        assert not keyword(call, "trust_remote_code"), where


def test_only_two_modules_read_the_environment():
    """The others set variables for libraries and children, and hand the environment on to Dagster's own command."""
    readers = {
        where.partition(":")[0]
        for where, call in calls()
        if name_of(call.func) in ("os.environ.get", "os.getenv", "os.environ.items", "os.environ.copy")
    }
    assert readers == {"pathassets/config.py", "pathassets/environment.py"}


def test_dagster_is_started_on_this_machine_s_own_address():
    source = (ROOT / "pathassets" / "cli" / "serving.py").read_text(encoding="utf-8")
    assert '"127.0.0.1"' in source
    assert "0.0.0.0" not in "".join(path.read_text(encoding="utf-8") for path in FILES)


def test_every_statement_of_the_threat_note_names_tests_that_exist():
    note = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(assets_tests/[\w/]+\.py)(?:::(\w+))?`", note)
    assert len(named) > 15
    for path, test in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert f"def {test}(" in source or not test, f"{path}::{test}"
    rows = [line for line in note.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| what"))]
    assert rows
    for row in rows:
        assert "`assets_tests/" in row or "no test" in row, row


@pytest.mark.parametrize("text", ["..", "a/../b", "/etc/passwd", "a\0b", "a\\b", ""])
def test_the_texts_are_hostile_enough(text, tmp_path):
    with pytest.raises(ValueError, match="not a key"):
        LocalRoot(tmp_path).local(text)
