"""A local object store for tests: a process of its own, and the environment by which every tool for S3 finds it."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

BUCKET = "slides"
SECRET = "a-secret-that-must-not-be-found"


class S3Server:
    """The server; what was put stays while it is down."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("s3_server.py")
        command = [sys.executable, "-W", "ignore", str(script)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoint = f"http://127.0.0.1:{self._answer()}"
        request = urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request).close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def down(self) -> None:
        """From now on it refuses connections."""
        self._tell("down")

    def up(self) -> None:
        """It serves again."""
        self._tell("up")

    @property
    def requests(self) -> int:
        """How many it has answered."""
        return int(self._tell("count"))

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _tell(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        assert answer, "the server has ended"
        return answer
