"""What only a bucket does: servers that go away, refuse, or promise too much; nothing secret is told."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from support.s3 import SECRET, S3Server

from pathassets.errors import ConfigError, Reason, StoreError, StoreUnreachableError
from pathassets.store import open_root
from pathassets.store.object_root import ObjectRoot
from pathassets.store.root import bucket_of


def test_an_address_is_a_bucket_and_a_prefix():
    assert bucket_of("s3://b.c-d/e/f/") == ("b.c-d", "e/f")
    assert bucket_of("s3://bucket") == ("bucket", "")


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///x", "gs://b/x", "https://h/b", "s3://key:secret@b", "s3://b/x?secret=1", "s3://b/a*"]
)
def test_another_address_is_refused_and_not_repeated(uri: str):
    with pytest.raises(ConfigError) as caught:
        open_root(uri)
    assert "secret" not in str(caught.value)


def test_a_bucket_without_a_prefix_is_a_root(s3: S3Server):
    root = open_root("s3://slides/")
    root.put("q/w", b"1")
    assert root.address("q/w") == "s3://slides/q/w"
    assert open_root("s3://slides/q").keys() == ["w"]
    root.delete("q")


def test_a_bucket_that_is_not_there_is_said(s3: S3Server):
    root = open_root("s3://no-such-bucket/x")
    for ask in (
        root.check_writable, root.keys, root.is_there, lambda: root.read_if_there("k"),
        lambda: root.put("k", b""), lambda: root.lock("x").__enter__(),
    ):  # fmt: skip
        with pytest.raises(StoreUnreachableError, match="there is no bucket no-such-bucket") as caught:
            ask()
        assert caught.value.reason is Reason.STORE_UNREACHABLE


def test_a_server_that_is_away_is_waited_for_and_then_asked_once_until_it_answers(s3: S3Server, bucket: str):
    root = ObjectRoot(bucket, patience_s=3)
    root.put("k", b"1")
    s3.down()
    back = threading.Timer(1, s3.up)
    back.start()
    assert root.read("k") == b"1", "it was back in time"
    back.join()
    s3.down()
    with pytest.raises(StoreUnreachableError, match=f"cannot write {bucket}/k") as caught:
        root.put("k", b"2")
    assert caught.value.reason is Reason.STORE_UNREACHABLE
    assert caught.value.remedy
    begun = time.monotonic()
    for ask in (root.keys, root.check_writable, *(partial(one, "k") for one in (root.read, root.exists, root.delete))):
        with pytest.raises(StoreUnreachableError):
            ask()
    with pytest.raises(StoreUnreachableError) as caught, root.lock("x", timeout=60):
        pass
    assert caught.value.reason is Reason.STORE_UNREACHABLE
    assert time.monotonic() - begun < 3, "patience is spent once"
    s3.up()
    assert root.read("k") == b"1"


def test_neither_key_nor_secret_appear_anywhere(s3: S3Server, bucket: str):
    root = ObjectRoot(bucket, patience_s=0)
    s3.down()
    with pytest.raises(StoreUnreachableError) as caught:
        root.keys()
    for text in (repr(root), str(caught.value), repr(caught.value.__cause__), str(vars(root))):
        assert SECRET not in text


class Careless(BaseHTTPRequestHandler):
    """A server that takes every write, whatever its condition, and keeps nothing."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200)

    def do_GET(self) -> None:
        if "list-type" in self.path:
            self._answer(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        else:
            self._answer(404)

    def do_HEAD(self) -> None:
        self._answer(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"<DeleteResult><Deleted><Key>k</Key></Deleted></DeleteResult>")

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Forbidding(Careless):
    """A server that refuses."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(403)

    def do_GET(self) -> None:
        self._answer(403)


@pytest.fixture
def serve(s3: S3Server, monkeypatch: pytest.MonkeyPatch):
    servers = []

    def start(handler: type[BaseHTTPRequestHandler]) -> None:
        server = HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        servers.append(server)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_server_that_overwrites_in_spite_of_the_condition_is_refused(serve):
    serve(Careless)
    root = open_root("s3://slides/x")
    root.put("k", b"1")
    with pytest.raises(StoreError, match="overwrites") as caught:
        root.check_writable()
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_what_is_forbidden_is_said(serve):
    serve(Forbidding)
    root = open_root("s3://slides/x")
    with pytest.raises(StoreError) as caught:
        root.put("k", b"1")
    assert caught.value.reason is Reason.STORE_READ_ONLY
    with pytest.raises(StoreUnreachableError) as caught:
        root.read("k")
    assert caught.value.reason is Reason.STORE_UNREACHABLE
    assert "AWS_ACCESS_KEY_ID" in caught.value.remedy


def test_an_upload_that_was_interrupted_is_not_there(s3: S3Server, bucket: str):
    root = ObjectRoot(bucket, patience_s=0)

    def fail() -> None:
        with root.workshop("g") as folder:
            (folder / "x").write_bytes(b"1")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError):
        fail()
    s3.down()
    with pytest.raises(StoreUnreachableError), root.staged("k") as temp:
        temp.write_bytes(b"1")
    s3.up()
    assert root.keys() == []


def run(code: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_store_on_a_disk_loads_nothing_of_this(tmp_path):
    loaded = run(f"""
        import sys
        from pathassets.store import Tables, open_root
        tables = Tables(open_root({str(tmp_path)!r}))
        tables.write("encoders", [], slide_id=None)
        with tables.root.lock("x"):
            tables.scan("tiles").collect()
        print([name for name in sys.modules if "obstore" in name or "object_root" in name or name.endswith("leases")])
    """)
    assert loaded == "[]"


def test_without_obstore_a_bucket_is_refused_with_what_to_install():
    said = run("""
        import sys
        sys.modules["obstore"] = None
        from pathassets.errors import ConfigError
        from pathassets.store import open_root
        try:
            open_root("s3://slides/x")
        except ConfigError as error:
            print(error)
    """)
    assert "pip install 'pathassets[s3]'" in said
