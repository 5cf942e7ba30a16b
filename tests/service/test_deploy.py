"""The files of deploy/: they parse, and name what exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SUFFIXES = re.compile(r"_(total|bucket|count|sum|info|created)$")


def known_metrics() -> set[str]:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "service").rglob("*.py"))
    return {SUFFIXES.sub("", name) for name in re.findall(r'"(ovavel_\w+)"', sources)}


def used_metrics(expressions: list[str]) -> set[str]:
    return {SUFFIXES.sub("", name) for each in expressions for name in re.findall(r"\bovavel_\w+", each)}


def load(name: str) -> Any:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


def test_alerts_and_board_use_metrics_that_exist() -> None:
    rules = load("alerts.yaml")["groups"][0]["rules"]
    panels = load("grafana.json")["panels"]
    used = used_metrics([rule["expr"] for rule in rules])
    shown = used_metrics([target["expr"] for panel in panels for target in panel["targets"]])
    assert len(used) > 4
    assert len(shown) > 8
    assert used | shown <= known_metrics()
    for text in [rule["expr"] for rule in rules] + [t["expr"] for p in panels for t in p["targets"]]:
        assert text.count("(") == text.count(")")
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {rule["labels"]["severity"] for rule in rules} == {"warning", "critical"}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "ovavel.service").read_text(encoding="utf-8")
    assert "/opt/ovavel/bin/ovavel" in text
    unit = tmp_path / "ovavel.service"
    unit.write_text(text.replace("/opt/ovavel/bin/ovavel", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_containers_have_their_files_and_a_healthy_order() -> None:
    compose = load("compose.yaml")
    services = compose["services"]
    for service in services.values():
        for volume in service["volumes"]:
            place = volume.partition(":")[0]
            # What the operator writes lies in site/; all else is here or is a volume.
            assert place in compose["volumes"] or place == "./site" or (DEPLOY / place).is_file()
        assert service["restart"] == "unless-stopped"
    build = services["ovavel"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert dockerfile.index("\nUSER ovavel") < dockerfile.index("\nCMD "), "not as root"
