"""What the manifests promise, and what KubeRay's operator and Ray ask for beyond their schemas."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S

import plait
from plait.cli import cli
from plait.spec import load_spec
from plait_workers.methods import METHODS
from tests.deploy.manifests import (
    KUBERAY,
    WRITTEN,
    clusters,
    containers,
    load_all,
    of_kind,
    pods,
    rendered,
    walk,
)

JOBS = of_kind("RayJob")
SPOT_NOTICE = 120
"""Seconds that AWS gives a spot machine."""
each_cluster = pytest.mark.parametrize("cluster", clusters().values(), ids=clusters())
each_pod = pytest.mark.parametrize("pod", [pod for _, pod in pods()], ids=[where for where, _ in pods()])
each_container = pytest.mark.parametrize(
    "container", [one for _, one in containers()], ids=[where for where, _ in containers()]
)
each_job = pytest.mark.parametrize("job", JOBS, ids=str)


def test_the_cluster_is_the_same_everywhere() -> None:
    first, *others = clusters().values()
    assert others
    assert all(other == first for other in others)
    first_job, *other_jobs = ({**job.data["spec"], "entrypoint": None} for job in JOBS)
    assert other_jobs
    assert all(other == first_job for other in other_jobs)


def test_there_is_one_image_and_it_is_pinned() -> None:
    images = {container["image"] for _, container in containers() if "image" in container}
    assert images == {f"REGISTRY/plait:{plait.__version__}"}


@each_container
def test_containers_are_bounded_and_locked(container: dict[str, Any]) -> None:
    for bound in ("requests", "limits"):
        assert set(container["resources"][bound]) == {"cpu", "memory"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@each_pod
def test_pods_run_as_nobody_special(pod: dict[str, Any]) -> None:
    context = pod["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] >= 10000
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


@each_pod
def test_what_a_pod_names_is_there(pod: dict[str, Any]) -> None:
    there = {(made.kind, made.name) for made in rendered()} | {(one.kind, one.name) for one in WRITTEN}
    configs = {(one.kind, re.sub(r"-[a-z0-9]{10}$", "", one.name)) for one in rendered()}
    assert ("ServiceAccount", pod["serviceAccountName"]) in there
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]}
    assert mounted == set(volumes)
    for volume in volumes.values():
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in configs


def test_only_who_talks_to_kubernetes_has_a_token_for_it() -> None:
    with_token = {where.split()[-1] for where, pod in pods() if pod["automountServiceAccountToken"]}
    assert with_token == {"head", "nightly/cronjob.yaml:CronJob/plait-nightly"}
    assert not any(account.data["automountServiceAccountToken"] for account in of_kind("ServiceAccount"))


def test_the_nightly_account_may_create_jobs_and_nothing_else() -> None:
    [role] = of_kind("Role")
    assert role.data["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]
    [binding] = of_kind("RoleBinding")
    assert binding.data["roleRef"]["name"] == role.name
    assert [(one["kind"], one["name"]) for one in binding.data["subjects"]] == [
        ("ServiceAccount", "plait-nightly")
    ]


def test_who_reads_the_store_has_a_role_in_aws() -> None:
    with_role = {
        account.name
        for account in of_kind("ServiceAccount")
        if "eks.amazonaws.com/role-arn" in account.data["metadata"].get("annotations", {})
    }
    used = {pod["serviceAccountName"] for where, pod in pods() if where.split()[-1] in {"head", "spot"}}
    assert used == with_role == {"plait-head", "plait-worker"}


def test_there_is_no_secret() -> None:
    assert not [manifest for manifest in WRITTEN if manifest.kind == "Secret"]
    for manifest in WRITTEN:
        for path, value in walk(manifest.data):
            assert not re.search(r"token|secret|password|access_?key", str(path[-1:]), re.I) or path[-1] in {
                "automountServiceAccountToken"
            }, path
            assert not (isinstance(value, str) and re.search(r"AKIA[0-9A-Z]{12,}", value)), path


@each_cluster
def test_ray(cluster: dict[str, Any]) -> None:
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert (cluster["enableInTreeAutoscaling"], cluster["autoscalerOptions"]["version"]) == (True, "v2")
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    variables = {one["name"]: one["value"] for one in head["template"]["spec"]["containers"][0]["env"]}
    checks = {name.removeprefix("RAY_health_check_"): int(value) for name, value in variables.items()
              if name.startswith("RAY_health_check_")}  # fmt: skip
    assert checks == {"period_ms": 1000, "timeout_ms": 2000, "failure_threshold": 3}
    for group in [head, *cluster["workerGroupSpecs"]]:
        # What KubeRay's operator refuses: v2 restarts nothing, and labels have a place of their own.
        assert group["template"]["spec"].get("restartPolicy", "Never") == "Never"
        assert "labels" not in group["rayStartParams"]
        assert "resources" not in group
        assert int(group["rayStartParams"]["object-store-memory"]) <= 200_000_000


@each_cluster
def test_spot_workers_and_a_head_that_stays(cluster: dict[str, Any]) -> None:
    head, [workers] = cluster["headGroupSpec"]["template"]["spec"], cluster["workerGroupSpecs"]
    pod = workers["template"]["spec"]
    assert head["nodeSelector"] == {"karpenter.sh/capacity-type": "on-demand"}
    assert "tolerations" not in head
    assert pod["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
    assert pod["tolerations"]
    assert workers["labels"] == {"ray.io/market-type": "spot"}
    assert workers["minReplicas"] == workers["replicas"] == 0
    for one in (head, pod):
        assert RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S < one["terminationGracePeriodSeconds"] <= SPOT_NOTICE


@each_container
def test_probes_ask_what_ray_answers_without_a_token(container: dict[str, Any]) -> None:
    ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    probes = [value for key, value in container.items() if key.endswith("Probe")]
    assert len(probes) == (3 if container.get("name") in {"ray-head", "ray-worker"} else 0)
    for probe in probes:
        assert probe["httpGet"] == {"path": "/api/healthz", "port": "health"}
        assert ports["health"] == 52365


@each_job
def test_jobs_are_as_the_operator_wants_them(job: Any) -> None:
    spec = job.data["spec"]
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["backoffLimit"] >= 1
    assert spec["activeDeadlineSeconds"] > 0
    # Rules exclude the older ways to end a cluster; and an object outlives the clusters that it owns.
    assert not {"shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "suspend"} & set(spec)
    waits: dict[str, dict[str, int]] = {}
    for rule in spec["deletionStrategy"]["deletionRules"]:
        [(_, when)] = ((key, value) for key, value in rule["condition"].items() if key != "ttlSeconds")
        assert rule["policy"] not in waits.setdefault(when, {})
        waits[when][rule["policy"]] = rule["condition"]["ttlSeconds"]
    assert set(waits) == {"SUCCEEDED", "Failed"}
    assert all(wait["DeleteCluster"] <= wait["DeleteSelf"] for wait in waits.values())
    submitter = spec["submitterPodTemplate"]["spec"]
    assert submitter["restartPolicy"] == "Never"
    assert "command" not in submitter["containers"][0]
    [environment] = load_all(spec["runtimeEnvYAML"])
    assert float(environment["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 10


def test_names_are_short_enough_for_what_is_made_of_them() -> None:
    for manifest in [*JOBS, *of_kind("RayCluster"), *of_kind("CronJob")]:
        name = manifest.name.replace("DATE", "2026-11-24")
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
        assert len(name) <= 47


@each_job
def test_entrypoints_are_commands_of_ours(job: Any) -> None:
    entrypoint = job.data["spec"]["entrypoint"].replace("DATE", "2026-11-24")
    # KubeRay hands it to a shell, and that to Ray, and that to a shell.
    assert not set(entrypoint) & set("'\"\\$`*?[]{}()<>|&;#~!")
    program, name, *arguments = shlex.split(entrypoint)
    assert program == "plait"
    cli.commands[name].make_context(name, arguments)


def test_the_spec_is_where_the_job_looks_and_can_be_read() -> None:
    [job] = [job for job in JOBS if job.name == "plait-merge"]
    path = PurePosixPath(shlex.split(job.data["spec"]["entrypoint"])[2])
    head = job.data["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert str(path.parent) in {mount["mountPath"] for mount in head["volumeMounts"]}
    spec = load_spec(
        (KUBERAY / "merge" / path.name).read_bytes(), name=path.name, overrides=(), methods=METHODS
    )
    [group] = job.data["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert spec.resources.labels == group["labels"]
    assert spec.resources.workers <= group["maxReplicas"]
    assert spec.resources.cpus <= int(limits["cpu"])
    assert spec.resources.memory < int(limits["memory"].removesuffix("Gi")) << 30


def test_a_night_posts_once_and_on_its_own_day() -> None:
    [cron] = of_kind("CronJob")
    spec = cron.data["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    [container] = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    zone = {one["name"]: one["value"] for one in container["env"]}["TIME_ZONE"]
    assert ZoneInfo(spec["timeZone"]) == ZoneInfo(zone)
    minute, hour, *days = spec["schedule"].split()
    assert days == ["*", "*", "*"]
    late = timedelta(hours=int(hour), minutes=int(minute), seconds=spec["startingDeadlineSeconds"])
    assert late + timedelta(seconds=spec["jobTemplate"]["spec"]["activeDeadlineSeconds"]) < timedelta(days=1)


def test_pods_reach_what_they_need_and_no_metadata_service() -> None:
    nothing, cluster = of_kind("NetworkPolicy")
    assert nothing.data["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    chosen = cluster.data["spec"]["podSelector"]["matchLabels"].items()
    templates = [value for manifest in WRITTEN for path, value in walk(manifest.data)
                 if path and path[-1] in {"template", "submitterPodTemplate"}]  # fmt: skip
    assert templates
    assert all(chosen <= template["metadata"]["labels"].items() for template in templates)
    blocks = [value for path, value in walk(cluster.data) if path and path[-1] == "ipBlock"]
    assert blocks == [{"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}]
    [prometheus] = [rule for rule in cluster.data["spec"]["ingress"] if "monitoring" in str(rule)]
    assert prometheus["ports"] == [{"protocol": "TCP", "port": 8080}]
