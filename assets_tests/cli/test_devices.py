"""What the commands say of several devices."""

from __future__ import annotations

import pytest

from pathassets.cli.doctor import diagnose
from pathassets.config import Study


@pytest.mark.parametrize(
    ("devices", "check", "status"),
    [("cpu", "device", "ok"), ("cpu,cpu", "devices", "ok"), ("cuda:99,cuda:98", "devices", "failed")],
)
def test_doctor_names_each_device_and_refuses_one_that_is_not_there(tmp_path, devices, check, status):
    line = next(line for line in diagnose(Study(tmp_path, device=devices)) if line.check.startswith("device"))
    assert (line.check, line.status) == (check, status)
    if status == "ok":
        assert line.finding.count("cpu (") == devices.count("cpu")
    else:
        assert "cuda:99" in line.finding
        assert line.fix
