"""The Kubernetes examples of deploy/: they parse, agree with themselves, and their commands are commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command_surface import kinds

from ovavel.runtime.cli import main
from ovavel.runtime.scale.job import Shard

DEPLOY = Path(__file__).parents[3] / "deploy"


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def check_pod(spec: dict[str, Any]) -> None:
    """Names fit together, and memory is limited: a pod without a limit takes its node down."""
    volumes = {volume["name"] for volume in spec["volumes"]}
    for volume in spec["volumes"]:
        (kind,) = volume.keys() - {"name"}
        assert kind in ("persistentVolumeClaim", "emptyDir")
    for container in spec["containers"]:
        assert {"name", "image", "resources", "volumeMounts"} <= container.keys()
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        resources = container["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        assert re.fullmatch(r"\d+Gi", resources["limits"]["memory"])


def check_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """It is understood; returns the command."""
    assert words[0] == "ovavel"
    seen: list[Any] = []
    kind = kinds()[words[1]]
    monkeypatch.setattr(kind, "run", lambda self: seen.append(self) or 0)
    assert main(words[1:]) == 0
    return seen[0]


def test_the_indexed_job_has_a_pod_for_each_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    job = load("kubernetes-shards.yaml")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    known = {"completionMode", "completions", "parallelism", "backoffLimitPerIndex", "podFailurePolicy", "template"}
    assert spec.keys() == known
    assert spec["completionMode"] == "Indexed"
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "a podFailurePolicy requires it"
    check_pod(pod)
    (container,) = pod["containers"]
    for rule in spec["podFailurePolicy"]["rules"]:
        assert rule["action"] in ("FailJob", "FailIndex", "Ignore", "Count")
        assert rule.get("onExitCodes", {}).get("containerName", container["name"]) == container["name"]
    (index,) = [each for each in container["env"] if each["name"] == "SHARD"]
    assert "job-completion-index" in index["valueFrom"]["fieldRef"]["fieldPath"]
    shards = set()
    for number in range(spec["completions"]):
        words = [word.replace("$(SHARD)", str(number)) for word in container["args"]]
        shards.add(Shard.parse(check_command(words, monkeypatch).scale.shard))
    assert shards == {Shard(number, spec["completions"]) for number in range(spec["completions"])}


def test_the_ray_job_runs_on_its_own_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    job = load("kubernetes-ray.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    command = check_command(job["spec"]["entrypoint"].split(), monkeypatch)
    assert command.scale.on == "auto"
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    check_pod(cluster["headGroupSpec"]["template"]["spec"])
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "no slot beside the cluster's own processes"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        check_pod(group["template"]["spec"])
        cores = int(group["rayStartParams"]["num-cpus"])
        assert cores == int(group["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
        assert cores % command.engine.threads == 0


def test_the_image_can_have_what_each_needs() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert "--build-arg EXTRAS=cpu,cluster" in text
    assert '".[$EXTRAS]"' in text
