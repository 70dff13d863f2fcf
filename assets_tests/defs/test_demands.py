"""`[resources]` reaches Ray and Kubernetes in words that their own code takes."""

from __future__ import annotations

import json

import pytest

from pathassets.config import CONFIG_FILE, Study
from pathassets.definitions import build_defs
from pathassets.defs.demands import KUBERNETES_TAG, RAY_TAG, demand_tags
from pathassets.recipes import ResourceOptions

WANTED = ResourceOptions(gpus=1, cpus=7.5, memory_gb=32)


def test_nothing_is_asked_for_unless_somebody_asks():
    assert demand_tags(ResourceOptions()) == {}


def test_the_settings_reach_the_job_s_runs_and_the_op(study):
    with (study.home / CONFIG_FILE).open("a") as file:
        file.write("[resources]\ngpus = 2\n")
    job = build_defs(Study(study.home)).resolve_job_def("slides")
    assert json.loads(job.tags[RAY_TAG]) == {"num_gpus": 2}
    assert json.loads(job.nodes[0].definition.tags[RAY_TAG]) == {"num_gpus": 2}


def test_ray_takes_it():
    configs = pytest.importorskip("dagster_ray.configs")
    config = configs.RayExecutionConfig.from_tags({RAY_TAG: json.dumps(demand_tags(WANTED)[RAY_TAG])})
    assert (config.num_gpus, config.num_cpus, config.memory) == (1, 7.5, 32_000_000_000)


def test_kubernetes_takes_it():
    job = pytest.importorskip("dagster_k8s.job")
    tags = {KUBERNETES_TAG: json.dumps(demand_tags(WANTED)[KUBERNETES_TAG])}
    container = job.get_user_defined_k8s_config(tags).container_config
    assert container["resources"] == {
        "requests": {"cpu": "7.5", "memory": "32000000000"},
        "limits": {"memory": "32000000000", "nvidia.com/gpu": "1"},
    }
