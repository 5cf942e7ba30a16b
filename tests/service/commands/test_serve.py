"""`ovavel serve` as a process: it starts, answers, and ends in order."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.service import CLIP, DEMO, until

from ovavel.runtime.cli import main
from ovavel.service.store import people
from ovavel.service.store.database import Database, rows
from ovavel.service.web.access.passwords import matches

pytestmark = pytest.mark.timeout(300)

OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import main; raise SystemExit(main())")


def site_file(folder: Path, *lines: str) -> Path:
    path = folder / "site.toml"
    path.write_text(
        "\n".join(
            (
                f'bundle = "{DEMO / "bundle"}"',
                'data = "data"',
                "threads = 1",
                'listen = "127.0.0.1:0"',
                *lines,
                "[[camera]]",
                'id = "gate"',
                f'source = "{CLIP}"',
                "loop = true",
            )
        ),
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_answers_and_ends_in_order(tmp_path: Path, how: signal.Signals) -> None:
    command = [*OVAVEL, "serve", str(site_file(tmp_path, 'log = "json"'))]
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(60)
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
    log = (tmp_path / "log").open("w")
    with (
        closing(manager),
        log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("watching 1 camera: http://127.0.0.1:")
            address = line.split()[-1]
            with urllib.request.urlopen(f"{address}healthz", timeout=60) as answer:
                assert answer.status == 200
            assert manager.recv(1000).decode().startswith("READY=1\nSTATUS=watching 1 camera, port ")
            assert manager.recv(1000) == b"WATCHDOG=1"
            # A reader of the stream must not keep it from ending.
            with urllib.request.urlopen(f"{address}api/v1/stream", timeout=60) as stream:
                assert stream.readline()
                until(lambda: '"watching"' in (tmp_path / "log").read_text())
                while process.poll() is None:  # impatience must not cut short what the first signal began
                    process.send_signal(how)
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(0.05)
                assert process.returncode == 0
            while (state := manager.recv(1000)) != b"STOPPING=1":
                assert state == b"WATCHDOG=1"
        finally:
            process.kill()
    with Database.open(tmp_path / "data", ballast_bytes=0) as store:
        assert not rows(store.read, "SELECT 1 FROM run WHERE ended_us IS NULL")
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (watching,) = [each for each in records if each["message"] == "watching"]
    assert (watching["level"], watching["camera"]) == ("info", "gate")


def test_check_and_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(site_file(tmp_path)), "--check"]) == 0
    assert "1 camera, well-formed" in capsys.readouterr().out
    assert main(["serve", "--schema"]) == 0
    assert '"$defs"' in capsys.readouterr().out
    assert main(["serve"]) == 2
    assert main(["serve", str(tmp_path / "none.toml")]) == 1
    assert main(["serve", str(site_file(tmp_path, "x = 1")), "--check"]) == 1
    assert "`x`" in capsys.readouterr().err


def test_users_and_tokens_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(*words: str, said: str = "") -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(said))
        code = main(["serve", str(path), *words])
        found = capsys.readouterr()
        return code, found.out + found.err

    path = site_file(tmp_path)
    assert serve("--add-user", "anna", "--role", "admin", said="correct horse\n")[0] == 0
    assert serve("--add-user", "otto", said="short\n")[0] == 2
    assert serve("--add-user", "a\tb", said="correct horse\n")[0] == 2
    code, token = serve("--add-token", "backup")
    assert code == 0
    assert "already" in serve("--add-token", "backup")[1]
    with Database.open(tmp_path / "data", ballast_bytes=0) as store:
        assert people.find_token(store.read, token.strip()) == people.Identity(name="token backup", role="view")
        assert [each.name for each in people.users(store.read)] == ["anna"]
        assert matches(people.password_hash(store.read, "anna"), "correct horse")
        assert [each.what for each in people.read_audit(store.read)] == ["add token", "set user"]
        assert "in use" in serve("--remove-user", "anna")[1]
    assert serve("--remove-user", "anna", "--remove-token", "backup")[0] == 0
    assert serve("--remove-user", "anna")[0] == 1


def test_a_bundle_that_is_missing_and_a_token_that_is_short_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("short\n")
    assert main(["serve", str(site_file(tmp_path, 'token_file = "token"'))]) == 1
    assert "shorter than 32" in capsys.readouterr().err
    path = site_file(tmp_path)
    path.write_text(path.read_text().replace(str(DEMO / "bundle"), "none"))
    assert main(["serve", str(path)]) == 1
    assert "no bundle" in capsys.readouterr().err
