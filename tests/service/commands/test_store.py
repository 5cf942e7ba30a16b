"""`ovavel serve backup`, `restore` and `doctor`."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from support.service import DEMO, camera_facts

from ovavel.runtime.cli import main
from ovavel.service.store import cameras
from ovavel.service.store.database import FILE, Database


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(
        f'bundle = "{DEMO / "bundle"}"\ndata = "data"\n[[camera]]\nid = "gate"\nsource = "http://gate.local/"\n'
    )
    with Database.open(tmp_path / "data", ballast_bytes=0) as store, store.write() as transaction:
        cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
    return path


def test_backup_doctor_restore(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy.sqlite3"
    assert main(["serve", "backup", str(site), "--out", str(copy)]) == 0
    assert "0 events" in capsys.readouterr().out
    assert main(["serve", "doctor", str(site)]) == 0
    assert "sound" in capsys.readouterr().out
    connection = apsw.Connection(str(tmp_path / "data" / FILE))
    connection.execute("UPDATE camera SET accounted_us = 5")
    connection.close()
    assert main(["serve", "doctor", str(site)]) == 1
    assert "accounts for 0 of 5" in capsys.readouterr().out
    assert main(["serve", "restore", str(site), "--backup", str(copy)]) == 0
    assert "replaced-1" in capsys.readouterr().out
    assert main(["serve", "doctor", str(site)]) == 0


def test_there_is_nothing_to_copy(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / FILE).unlink()
    assert main(["serve", "backup", str(site), "--out", str(tmp_path / "copy.sqlite3")]) == 1
    assert main(["serve", "doctor", str(site)]) == 1
    assert main(["serve", "restore", str(site), "--backup", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.count("check the disk") == 3
    assert not (tmp_path / "copy.sqlite3").exists()
