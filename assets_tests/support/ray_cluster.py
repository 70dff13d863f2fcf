"""A Ray cluster on this machine: a head that runs nothing, and workers, each a node of its own that can be killed.

Every node has an address of its own on the loopback device and, where the kernel lets us, a host name of its own: what is
told apart by host name in a real cluster is told apart here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from support.daemon import free_port, wait_for

RAY = Path(sys.executable).with_name("ray")
STORE_BYTES = 100_000_000  # Ray's object store, which nothing here uses
OWN_NAME = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')


class Cluster:
    """Nodes by name.

    Attributes:
        address: Where jobs are sent.
        nodes: The process above all others of each node.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._port, dashboard = free_port(), free_port()
        self._dashboard = ("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}")
        self._named = can_name_hosts()
        self._started = 0
        self.address = f"http://127.0.0.1:{dashboard}"
        self.nodes: dict[str, subprocess.Popen] = {}

    def start_head(self) -> None:
        """The node that keeps the books and runs nothing."""
        client = f"--ray-client-server-port={free_port()}"
        self._start("head", "--head", f"--port={self._port}", "--num-cpus=0", client, *self._dashboard)
        wait_for(lambda: self._answers() or self.nodes["head"].poll() is not None)
        assert self.nodes["head"].poll() is None, self._log("head").read_text()

    def start_worker(self, name: str) -> None:
        """A node with room for one run."""
        before = self._alive()
        self._start(name, f"--address=127.0.0.2:{self._port}", "--num-cpus=1")
        wait_for(lambda: self._alive() > before or self.nodes[name].poll() is not None)
        assert self.nodes[name].poll() is None, self._log(name).read_text()

    def kill(self, name: str) -> None:
        """Ends all processes of a node at once, as a power cut would."""
        process = self.nodes.pop(name)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()

    def node_of(self, pid: int) -> str:
        """The node that a process belongs to."""
        above = {pid, *(one.pid for one in psutil.Process(pid).parents())}
        return next(name for name, process in self.nodes.items() if process.pid in above)

    def jobs(self) -> list[dict]:
        """What everybody who can open the dashboard sees of the jobs."""
        return self._ask("/api/jobs/").json()

    def stop(self) -> None:
        """Ends every node."""
        for name in list(self.nodes):
            self.kill(name)

    def _alive(self) -> int:
        nodes = self._ask("/nodes?view=summary").json()["data"]["summary"]
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    def _answers(self) -> bool:
        import requests

        try:
            return self._ask("/api/jobs/").ok
        except requests.RequestException:
            return False

    def _ask(self, path: str):
        import requests

        return requests.get(self.address + path, timeout=30)

    def _start(self, name: str, *arguments: str) -> None:
        self._started += 1
        common = [
            f"--node-ip-address=127.0.0.{self._started + 1}",
            f"--object-store-memory={STORE_BYTES}",
            f"--dashboard-agent-listen-port={free_port()}",
            "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats", "--block",
        ]  # fmt: skip
        if name == "head":
            common.append(f"--temp-dir={self._folder}")
        own_name = [*OWN_NAME, f"node-{name}"] if self._named else []
        path = f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"  # a run is the bare command `dagster`
        with self._log(name).open("w") as log:
            self.nodes[name] = subprocess.Popen(
                [*own_name, str(RAY), "start", *common, *arguments],
                env={**os.environ, **self._environment, "PATH": path},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _log(self, name: str) -> Path:
        return self._folder.with_name(f"{name}.log")


def can_name_hosts() -> bool:
    """Whether a process may be given a host name of its own."""
    try:
        return subprocess.run([*OWN_NAME, "trial", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def ray_running(folder: Path, environment: Mapping[str, str]) -> Iterator[Cluster]:
    """A cluster with a head and no workers; the test is skipped where Ray is not installed."""
    pytest.importorskip("ray", reason="pip install 'pathassets[ray]'")
    pytest.importorskip("dagster_ray", reason="pip install 'pathassets[ray]'")
    cluster = Cluster(folder, environment)
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.stop()
