"""What a run of slides demands of a machine, in the words of the launchers that can give it.

Belongs here: `[resources]` of the settings as tags that Ray and Kubernetes read. Does not belong: limits of how many runs
go at once (`dagster.yaml`).
"""

from __future__ import annotations

from typing import Any

from pathassets.recipes import ResourceOptions

RAY_TAG = "dagster-ray/config"
KUBERNETES_TAG = "dagster-k8s/config"


def demand_tags(wanted: ResourceOptions) -> dict[str, Any]:
    """Tags for a job and its op; none where nothing is asked for. Other launchers pass over them."""
    memory = int(wanted.memory_gb * 1e9) if wanted.memory_gb is not None else None
    ray = {"num_gpus": wanted.gpus, "num_cpus": wanted.cpus, "memory": memory}
    ray = {name: value for name, value in ray.items() if value is not None}
    if not ray:
        return {}
    container = {"resources": _kubernetes(wanted, memory)}
    return {RAY_TAG: ray, KUBERNETES_TAG: {"container_config": container}}


def _kubernetes(wanted: ResourceOptions, memory: int | None) -> dict[str, dict[str, str]]:
    """Memory and GPUs are limits, for more of them cannot be had; cores are a request: idle ones may be used."""
    requests = {"cpu": wanted.cpus, "memory": memory}
    limits = {"memory": memory, "nvidia.com/gpu": wanted.gpus or None}
    return {
        kind: {
            name: f"{amount:g}" if isinstance(amount, float) else str(amount)
            for name, amount in amounts.items()
            if amount is not None
        }
        for kind, amounts in (("requests", requests), ("limits", limits))
    }
