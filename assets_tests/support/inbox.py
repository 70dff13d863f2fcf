"""A sensor that is ticked as the daemon does it, and files that arrive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dagster as dg

from pathassets.config import CONFIG_FILE, Study
from pathassets.defs.sensors import inbox_sensor


class Inbox:
    """What the sensor asks for is done, and its cursor is kept."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, **settings: Any) -> None:
        self.home, self.instance = home, instance
        self.settings = settings
        self.folder = home / "inbox"
        self.folder.mkdir(exist_ok=True)
        self.cursor: str | None = None
        self.asked: list[str] = []

    @property
    def study(self) -> Study:
        return Study(self.home, **self.settings)

    def tick(self) -> dg.SensorResult:
        """One tick; its partitions are added as the daemon adds them."""
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            result = inbox_sensor(self.study)(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions("slides", list(request.partition_keys))
        self.asked += [slide_id for group in self.groups(result) for slide_id in group]
        return result

    def ticks(self, n: int) -> dg.SensorResult:
        """Several ticks; the last one's result."""
        for _ in range(n - 1):
            self.tick()
        return self.tick()

    def groups(self, result: dg.SensorResult) -> list[list[str]]:
        """The slides of each run that a tick asked for, as Dagster makes them of the run's range."""
        keys = self.partitions()
        found = []
        for request in result.run_requests or []:
            first, last = (request.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end"))
            found.append(keys[keys.index(first) : keys.index(last) + 1])
        return found

    def partitions(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions("slides"))

    def state(self, result: dg.SensorResult) -> str:
        """What a tick says when it asks for nothing."""
        assert result.skip_reason is not None
        return result.skip_reason.skip_message or ""

    def drop(self, name: str, content: bytes | str = b"", *, mtime: float | None = None) -> Path:
        """A file arrives."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content or name.encode())
        if mtime is not None:
            os.utime(path, (mtime, mtime))
        return path

    def rows(self) -> dict[str, dict[str, Any]]:
        """The table `slides` by slide id."""
        return {row["slide_id"]: row for row in self.study.scan("slides").collect().to_dicts()}

    def names(self) -> dict[str, str]:
        """Slide ids without their digest, and where their file lies in the inbox."""
        return {
            slide_id.rpartition("-")[0]: row["path"].removeprefix(f"{self.folder}/")
            for slide_id, row in self.rows().items()
        }

    def outcomes(self) -> dict[str, tuple[str, str | None]]:
        """Status and reason of step `slide`, by slide id."""
        rows = self.study.scan("outcomes").collect().to_dicts()
        return {row["slide_id"]: (row["status"], row["reason"]) for row in rows if row["step"] == "slide"}


def configure(home: Path, text: str) -> None:
    """Writes the study's settings."""
    (home / CONFIG_FILE).write_text(text)
