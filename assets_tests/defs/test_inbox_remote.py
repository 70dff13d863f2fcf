"""An inbox in an object store, through a real S3-compatible server: registered, brought here, computed, missed, back."""

from __future__ import annotations

import pytest
from dicoms_for_tests import dicom
from support.inbox import Inbox

from pathassets.cli.running import Request, run_study
from pathassets.config import Study
from pathassets.errors import ConfigError, Reason, SlideError
from pathassets.slides import copies as copies_module
from pathassets.slides import slide_id as id_of
from pathassets.steps import inbox as inbox_module
from pathassets.steps.batch import run_batch
from pathassets.steps.chain import run_node
from pathassets.steps.inbox import Limits
from pathassets.steps.nodes import chain
from pathassets.steps.register import files_to_register, register
from pathassets.steps.session import Session


@pytest.fixture
def inbox(study, instance, bucket):
    return Inbox(study.home, instance, inbox=["inbox", f"{bucket.uri}/in"])


def probe(inbox, slide_id):
    session = Session(inbox.study)
    return run_node(session, slide_id, chain(inbox.study)[0], {}).outcome


def cached(inbox):
    """Names of the local copies."""
    return sorted(path.name for path in inbox.study.copies_path.glob("*/*"))


def test_a_slide_in_a_bucket_becomes_a_partition_with_the_id_of_its_content(inbox, bucket, slide_file):
    bucket.put("in/sub/good.tiff", slide_file.read_bytes())
    bucket.put("in/notes.txt", b"x")
    bucket.put("other/x.svs", b"x")
    inbox.drop("local.svs")
    assert len(inbox.ticks(2).run_requests) == 1
    rows = inbox.rows()
    assert sorted(row["path"] for row in rows.values()) == [
        str(inbox.folder / "local.svs"),
        f"{bucket.uri}/in/sub/good.tiff",
    ]
    assert id_of(slide_file) in rows
    assert sorted(inbox.asked) == sorted(rows)
    assert not inbox.ticks(2).run_requests


@pytest.mark.e2e
def test_the_whole_chain_of_a_slide_in_a_bucket(inbox, bucket, slide_file):
    bucket.put("in/good.tiff", slide_file.read_bytes())
    inbox.ticks(2)
    session, results = Session(inbox.study), []
    run_batch(session, inbox.asked, chain(inbox.study), results.append)
    assert {result.outcome.status for result in results} <= {"ok", "flagged"}
    assert inbox.study.scan("embeddings").collect()["n_tiles"].item() > 0
    assert inbox.rows()[inbox.asked[0]]["path"] == f"{bucket.uri}/in/good.tiff"
    again = []
    run_batch(session, inbox.asked, chain(inbox.study), again.append)
    assert all(result.unchanged for result in again)
    assert cached(inbox) == ["good.tiff"]


def test_an_object_that_was_put_again_is_a_new_slide_and_never_enters_under_the_old_id(inbox, bucket, slide_file):
    data = slide_file.read_bytes()
    bucket.put("in/a.tiff", data)
    inbox.ticks(2)
    (old,) = inbox.asked
    assert probe(inbox, old).status == "ok"
    bucket.put("in/a.tiff", data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(SlideError) as caught, Session(inbox.study).open_slide(old):
        pass
    assert caught.value.reason is Reason.FILE_CHANGED
    inbox.ticks(2)
    assert len(inbox.partitions()) == 2
    assert inbox.rows()[old]["missing_since"] is not None
    assert probe(inbox, old).reason == "file_changed"


def test_an_object_that_is_deleted_is_missed_and_comes_back(inbox, bucket, slide_file):
    bucket.put("in/a.tiff", slide_file.read_bytes())
    inbox.ticks(2)
    (slide_id,) = inbox.asked
    good = probe(inbox, slide_id)
    bucket.delete("in/a.tiff")
    with pytest.raises(SlideError) as caught, Session(inbox.study).open_slide(slide_id):
        pass
    assert caught.value.reason is Reason.FILE_MISSING
    inbox.ticks(3)
    assert inbox.rows()[slide_id]["missing_since"] is not None
    assert inbox.outcomes() == {slide_id: ("flagged", "file_missing")}
    bucket.put("in/a.tiff", slide_file.read_bytes())
    inbox.ticks(2)
    assert inbox.asked == [slide_id] * 2
    assert probe(inbox, slide_id).says_the_same(good)


def test_a_slide_moved_from_the_folder_to_the_bucket_keeps_its_id(inbox, bucket, slide_file):
    path = inbox.drop("good.tiff", slide_file.read_bytes())
    inbox.ticks(2)
    path.unlink()
    bucket.put("in/good.tiff", slide_file.read_bytes())
    inbox.ticks(4)
    (row,) = inbox.rows().values()
    assert (row["path"], row["missing_since"]) == (f"{bucket.uri}/in/good.tiff", None)
    assert len(inbox.asked) == 1


def test_slides_of_many_objects(inbox, bucket):
    bucket.put("in/m.mrxs", b"index")
    bucket.put("in/scan/1.dcm", dicom("1.5"))
    bucket.put("in/scan/2.dcm", dicom("1.5"))
    assert "1 of them lack parts" in inbox.state(inbox.tick())
    bucket.put("in/m/Slidedat.ini", b"s")
    inbox.tick()
    bucket.put("in/m/Data0000.dat", b"12")
    inbox.ticks(3)
    assert sorted(slide_id.rpartition("-")[0] for slide_id in inbox.asked) == ["1", "m"]
    session = Session(inbox.study)
    (mrxs,) = (slide_id for slide_id in inbox.asked if slide_id.startswith("m-"))
    with pytest.raises(SlideError) as caught, session.open_slide(mrxs):
        pass
    assert "Slidedat.ini" in caught.value.message  # OpenSlide has looked into the parts
    assert f"{bucket.uri}/in/m.mrxs" in caught.value.message
    assert sorted(path.name for path in inbox.study.copies_path.glob("*/m/*")) == ["Data0000.dat", "Slidedat.ini"]


def test_what_is_said_of_a_remote_slide_names_it_as_its_user_knows_it(inbox, bucket, data_dir):
    slide = data_dir / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"  # says nothing of its resolution
    bucket.put("in/tcga.svs", slide.read_bytes())
    inbox.ticks(2)
    outcome = probe(inbox, inbox.asked[0])
    assert outcome.reason == "mpp_missing"
    assert f'"{bucket.uri}/in/tcga.svs",0.25' in outcome.remedy
    assert ".cache" not in outcome.message + outcome.remedy
    (inbox.home / "slides.csv").write_text(f"path,mpp,patient\n{bucket.uri}/in/tcga.svs,0.5,P1\n")
    assert probe(inbox, inbox.asked[0]).status == "ok"
    (row,) = inbox.rows().values()
    assert (row["mpp"], row["mpp_origin"], row["patient"]) == (0.5, "manifest", "P1")


def test_slides_that_only_the_manifest_names(inbox, bucket, slide_file):
    uri = bucket.put("elsewhere/good.tiff", slide_file.read_bytes())
    (inbox.home / "slides.csv").write_text(f"path,mpp\n{uri},0.5\n{bucket.uri}/elsewhere/nothing.svs,0.5\n")
    inbox.ticks(2)
    assert [row["path"] for row in inbox.rows().values()] == [uri]


def test_a_store_that_does_not_answer_hides_its_slides_and_stops_nothing(study, instance, bucket, slide_file, request):
    inbox = Inbox(study.home, instance, inbox=["inbox", f"{bucket.uri}/in"])
    bucket.put("in/a.tiff", slide_file.read_bytes())
    inbox.ticks(2)
    request.getfixturevalue("no_server")
    inbox.drop("local.svs")
    assert f"{bucket.uri}/in cannot be listed" in inbox.state(inbox.tick())
    assert len(inbox.tick().run_requests) == 1
    assert all(row["missing_since"] is None for row in inbox.rows().values())
    with pytest.raises(SlideError) as caught, Session(inbox.study).open_slide(inbox.asked[0]):
        pass
    assert caught.value.reason is Reason.FILE_UNREADABLE


def test_a_large_object_that_takes_several_ticks_is_registered_in_the_end(inbox, bucket, slide_file, monkeypatch):
    monkeypatch.setattr(copies_module, "BLOCK_BYTES", 2**16)
    bucket.put("in/a.tiff", slide_file.read_bytes())
    inbox.tick()
    monkeypatch.setattr(inbox_module, "Limits", lambda: Limits(seconds=0.05))
    ticks = 0
    while not inbox.asked:
        inbox.tick()
        ticks += 1
        assert ticks < 50
    assert list(inbox.rows()) == inbox.asked
    assert ticks > 1


def test_the_room_for_copies_is_a_setting(inbox, bucket, slide_file):
    data = slide_file.read_bytes()
    inbox.settings["cache_gb"] = len(data) * 1.5 / 1e9
    for name in ("a.tiff", "b.tiff"):
        bucket.put(f"in/{name}", data + name.encode())
    inbox.ticks(3)
    assert len(inbox.asked) == 2
    assert len(cached(inbox)) == 1
    for slide_id in inbox.asked:
        assert probe(inbox, slide_id).status == "ok"
    assert len(cached(inbox)) == 1


def test_a_slide_without_room_is_that_slide_s_outcome(inbox, bucket, slide_file):
    bucket.put("in/good.tiff", slide_file.read_bytes())
    inbox.drop("local.svs")
    inbox.settings["cache_gb"] = 1e-6
    inbox.ticks(3)
    assert len(inbox.asked) == 2
    assert probe(inbox, id_of(slide_file)).reason == "disk_full"
    inbox.settings["cache_gb"] = 1.0
    assert probe(inbox, id_of(slide_file)).status == "ok"


def test_the_command_line_takes_the_bucket_too(inbox, bucket, slide_file):
    bucket.put("in/a.tiff", slide_file.read_bytes())
    session = Session(inbox.study)
    (entry,) = register(session, files_to_register(session, []))
    assert (entry.path, entry.is_new) == (f"{bucket.uri}/in/a.tiff", True)
    (again,) = register(session, files_to_register(session, []))
    assert (again.slide_id, again.is_new) == (entry.slide_id, False)


def test_slides_of_a_bucket_can_be_named_one_by_one_or_by_their_folder(inbox, bucket, slide_file):
    one = bucket.put("in/a.tiff", slide_file.read_bytes())
    two = bucket.put("in/sub/b.tiff", slide_file.read_bytes() + b"\0")
    bucket.put("in/notes.txt", b"x")
    session = Session(inbox.study)
    assert [file.path for file in files_to_register(session, [one])] == [one]
    assert [file.path for file in files_to_register(session, [f"{bucket.uri}/in"])] == [one, two]


def test_a_run_on_a_place_without_slides_or_with_a_password_does_not_start(inbox, bucket):
    bucket.put("in/notes.txt", b"x")
    for place in (f"{bucket.uri}/in", f"{bucket.uri}/nowhere", "s3://no-such-bucket-here/x.svs"):
        with pytest.raises(ConfigError, match="no slide can be seen") as caught:
            run_study(Request(home=inbox.study.home, paths=(place,)))
        assert caught.value.reason is Reason.FILE_MISSING
    with pytest.raises(ConfigError, match="password") as caught:
        run_study(Request(home=inbox.study.home, paths=("s3://user:secret@lab/x.svs",)))
    assert "secret" not in str(caught.value)


def test_secrets_do_not_enter_the_tables(tmp_path):
    with pytest.raises(ConfigError, match="password"):
        Study(tmp_path, inbox=["ftp://user:secret@lab/slides"])
