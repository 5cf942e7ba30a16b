"""`ovavel demo-site`: three cameras, each with events, and everything ends with a signal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import main; raise SystemExit(main())")


@pytest.mark.timeout(300)
def test_every_camera_has_an_event_and_a_signal_ends_it(tmp_path: Path) -> None:
    pytest.importorskip("apsw", reason="the extra serve is not installed")
    from support.service import until

    command = [*OVAVEL, "demo-site", "--port", "0", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = next(each for each in process.stdout if each.startswith("watching"))
            assert line.startswith("watching 3 cameras: http://127.0.0.1:")

            def cameras() -> set[str]:
                with urllib.request.urlopen(f"{line.split()[-1]}api/v1/events", timeout=30) as answer:
                    return {each["camera"] for each in json.load(answer)["events"]}

            until(lambda: cameras() == {"yard", "gate", "hall"})
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert {line.split()[1] for line in errors.splitlines()} <= {"info"}, errors
    assert (tmp_path / "out" / "store" / "ovavel.sqlite3").exists()
    assert "loop = true" in (tmp_path / "out" / "site.toml").read_text(encoding="utf-8")
