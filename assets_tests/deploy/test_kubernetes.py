"""The files of deploy/kubernetes, held against Kubernetes' own models and dagster-k8s, as far as that goes without a cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef

from pathassets.defs.demands import KUBERNETES_TAG, demand_tags
from pathassets.recipes import ResourceOptions

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
MODELS = {
    "Deployment": "V1Deployment", "ServiceAccount": "V1ServiceAccount", "Role": "V1Role", "RoleBinding": "V1RoleBinding",
    "PersistentVolumeClaim": "V1PersistentVolumeClaim", "ConfigMap": "V1ConfigMap",
}  # fmt: skip
MANIFESTS = ("dagster-pod.yaml", "service-account.yaml", "volume.yaml")


def objects() -> list[dict]:
    texts = [(FOLDER / name).read_text(encoding="utf-8") for name in MANIFESTS]
    return [found for text in texts for found in yaml.safe_load_all(text)]


def rendered() -> list[dict]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here to render the kustomization")
    run = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return list(yaml.safe_load_all(run.stdout))


def checked(found: dict) -> None:
    """Refuses every key that Kubernetes' model of the object does not have, at any depth."""
    client = pytest.importorskip("kubernetes.client", reason="pip install 'pathassets[kubernetes]'")
    models = pytest.importorskip("dagster_k8s.models")
    models.k8s_model_from_dict(getattr(client, MODELS[found["kind"]]), models.k8s_snake_case_dict(
        getattr(client, MODELS[found["kind"]]), found))  # fmt: skip


def test_every_object_is_one_that_kubernetes_knows():
    kinds = [found["kind"] for found in objects()]
    assert sorted(set(kinds)) == ["Deployment", "PersistentVolumeClaim", "Role", "RoleBinding", "ServiceAccount"]
    for found in objects():
        checked(found)


def test_a_key_that_kubernetes_does_not_know_would_be_found():
    deployment = next(found for found in objects() if found["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["commands"] = ["x"]
    with pytest.raises(Exception, match="commands"):
        checked(deployment)


def test_the_kustomization_renders_and_runs_take_the_image_of_the_code_server():
    found = rendered()
    for one in found:
        checked(one)
        assert one["metadata"]["namespace"] == "pathassets"
    deployment = next(one for one in found if one["kind"] == "Deployment")
    containers = deployment["spec"]["template"]["spec"]["containers"]
    images = {container["image"] for container in containers}
    assert len(images) == 1
    for container in containers:
        assert container["env"] == [{"name": "PATHASSETS_IMAGE", "value": images.copy().pop()}]
    settings = {name for one in found if one["kind"] == "ConfigMap" for name in one["data"]}
    assert settings == {"dagster.yaml", "pathassets.toml", "workspace.yaml"}


def test_nothing_listens_beyond_its_pod_and_nothing_runs_as_root():
    deployment = next(found for found in objects() if found["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert "hostNetwork" not in pod, "the number of a process of one container means another one in the next"
    assert pod["securityContext"]["runAsNonRoot"] is True
    hosts = [c["command"][c["command"].index("-h") + 1] for c in pod["containers"] if "-h" in c["command"]]
    assert hosts == ["127.0.0.1", "127.0.0.1"]
    for container in [*pod["containers"], *pod["initContainers"]]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """The run launcher that dagster.yaml describes, without the parts that need a server."""
    module = pytest.importorskip("dagster_k8s", reason="pip install 'pathassets[kubernetes]'")
    for name in ("HOST", "USER", "PASSWORD", "DATABASE"):
        monkeypatch.setenv(f"PATHASSETS_PG_{name}", "x")
    monkeypatch.setenv("PATHASSETS_PG_PORT", "5432")
    monkeypatch.setenv("PATHASSETS_IMAGE", "registry.example.org/pathassets:0.1.0")
    monkeypatch.setattr("kubernetes.config.load_incluster_config", lambda: None)
    monkeypatch.setattr("dagster_k8s.launcher.DagsterKubernetesClient.production_client", lambda **_: None)
    shutil.copy(FOLDER / "dagster.yaml", tmp_path)
    made = InstanceRef.from_dir(str(tmp_path)).run_launcher
    assert isinstance(made, module.K8sRunLauncher)
    return made


def job_of(launcher, wanted: ResourceOptions) -> dict:
    """The Kubernetes job of a run that asks for something."""
    from dagster_k8s.job import construct_dagster_k8s_job, get_user_defined_k8s_config

    tags = {name: json.dumps(value) for name, value in demand_tags(wanted).items()}

    @dg.job
    def slides() -> None:
        pass

    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(slides, tags=tags)
    context = launcher.get_container_context_for_run(run)
    made = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(None, launcher), args=["dagster"], job_name="dagster-run-1",
        user_defined_k8s_config=context.run_k8s_config, component="run_worker", env_vars=[],
    )  # fmt: skip
    assert KUBERNETES_TAG not in tags or get_user_defined_k8s_config(tags)
    return made.to_dict()


def test_a_run_gets_what_the_settings_ask_for_and_nothing_more(launcher):
    spec = job_of(launcher, ResourceOptions(gpus=1, cpus=8, memory_gb=32))["spec"]["template"]["spec"]
    [container] = spec["containers"]
    assert container["image"] == "registry.example.org/pathassets:0.1.0"
    assert container["resources"]["limits"] == {"memory": "32000000000", "nvidia.com/gpu": "1"}
    assert container["resources"]["requests"]["cpu"] == "8"
    assert container["security_context"]["allow_privilege_escalation"] is False
    assert spec["automount_service_account_token"] is False
    assert spec["service_account_name"] == "pathassets-run"
    assert {"name": "study", "mount_path": "/study"}.items() <= container["volume_mounts"][-1].items()
    assert container["env_from"][-1]["secret_ref"]["name"] == "pathassets-environment"


def test_a_run_cannot_ask_for_the_node_itself(launcher):
    @dg.job
    def slides() -> None:
        pass

    tags = {KUBERNETES_TAG: json.dumps({"pod_spec_config": {"host_network": True}})}
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(slides, tags=tags)
    with pytest.raises(Exception, match="host_network"):
        launcher.get_container_context_for_run(run)
