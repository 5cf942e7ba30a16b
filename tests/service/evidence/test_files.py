"""Rows and files of assets: together after kill -9 at every failpoint, and never more than the limits allow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.service import check_assets, news

from ovavel.service.evidence import files
from ovavel.service.failpoints import FAILPOINTS, VARIABLE
from ovavel.service.store import assets, events
from ovavel.service.store.assets import MediaFile
from ovavel.service.store.database import Database, rows

ROOT = Path(__file__).parents[3]
ASSET_FAILPOINTS = [each for each in FAILPOINTS if each.startswith("asset.")]

KEEPER = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from support.service import camera_facts, news, run_facts, site
from ovavel.service.capture.messages import Clip
from ovavel.service.config.site import Camera, Keep
from ovavel.service.evidence import files
from ovavel.service.evidence.keeper import Keeper, _Wanted
from ovavel.service.store import assets, cameras, events
from ovavel.service.store.database import Database
folder = Path(sys.argv[1])
now_us = time.time_ns() // 1000
with Database.open(folder, ballast_bytes=0) as store:
    with store.write() as transaction:
        cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
        cameras.open_run(transaction, run_facts("run-1", "gate"))
    def ask(camera, cut):
        path = Path(cut.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"clip " * 1000)
        keeper.clipped(camera, Clip(event=cut.event, bytes=5000, sha256="0" * 64, start_s=0, end_s=3, codec="h264"))
        return True
    keep = Keep(min_free_gb=0, snapshots_gb=25e-6, clips_gb=7e-6)
    keeper = Keeper(store, site(folder, Camera(id="gate", source="x"), keep=keep), ask)
    for number in range(1, 6):
        with store.write() as transaction:
            for kind in ("start", "end"):
                facts = news(kind, number, start_us=now_us + number, end_us=now_us + number + 1)
                events.record(transaction, facts, event_id=f"e{number}", now_us=now_us, sinks=())
            assets.expect(transaction, f"e{number}", ("snapshot", "sound", "clip"))
        run = keeper.run(Camera(id="gate", source="x"), 0, lambda media_us: media_us)
        for kind in ("snapshot", "sound"):
            keeper.picture(f"e{number}", kind, b"x" * 10_000, run._path(f"e{number}", kind, number), (0, 1))
        keeper.clip(f"e{number}", _Wanted("gate", 0, run._path(f"e{number}", "clip", number), int), 0, 3)
    keeper.start()
    keeper.close(60)
"""


@pytest.mark.parametrize("failpoint", ASSET_FAILPOINTS)
@pytest.mark.parametrize("count", [1, 4])
def test_rows_and_files_agree_after_kill_9(tmp_path: Path, failpoint: str, count: int) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KEEPER, str(tmp_path)],
        env={**os.environ, VARIABLE: f"{failpoint}:{count}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    reached_less_often = failpoint == "asset.rows-removed" and count > 1
    assert run.returncode in (-signal.SIGKILL, *([0] if reached_less_often else [])), run.stderr
    with Database.open(tmp_path, ballast_bytes=0) as store:
        assert len(rows(store.read, "SELECT 1 FROM asset")) == 15
        files.recover_assets(store)
        check_assets(store)
        assert files.recover_assets(store) == 0, "doing it twice changes nothing"
        causes = {cause for (cause,) in rows(store.read, "SELECT cause FROM asset WHERE state = 'failed'")}
        assert causes <= {assets.NOT_FINISHED}


def test_without_a_crash_the_limits_decide_what_is_left(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KEEPER, str(tmp_path)], cwd=ROOT, check=True, timeout=110)
    with Database.open(tmp_path, ballast_bytes=0) as store:
        check_assets(store)
        kept = rows(store.read, "SELECT event_id, kind FROM asset WHERE state = 'ready' ORDER BY event_id, kind")
        assert kept == [("e5", "clip"), ("e5", "snapshot"), ("e5", "sound")]
        (why,) = {cause for (cause,) in rows(store.read, "SELECT cause FROM asset WHERE state = 'removed'")}
        assert why == "more than its space"


@pytest.fixture
def store(store: Database) -> Database:
    with store.write() as transaction:
        for kind in ("start", "end"):
            events.record(transaction, news(kind, 1), event_id="e1", now_us=1, sinks=())
        assets.expect(transaction, "e1", ("snapshot", "clip"))
    return store


def add(store: Database, path: str, data: bytes = b"data") -> None:
    digest = files.write(store.folder / path, data)
    file = MediaFile(path=path, bytes=len(data), sha256=digest, start_us=0, end_us=1, has_audio=False, codec="webp")
    with store.write() as transaction:
        assert assets.ready(transaction, "e1", "snapshot", file)


def test_a_file_that_is_gone_or_cut_short_is_said_to_be(store: Database) -> None:
    add(store, "media/gate/2026-11-29/e1.snapshot.webp")
    (store.folder / "media/gate/2026-11-29/e1.snapshot.webp").write_bytes(b"da")
    files.recover_assets(store)
    found = assets.find_asset(store.read, "e1", "snapshot")
    assert found is not None
    assert (found.state, found.cause, found.path) == ("failed", files.MISSING, None)
    check_assets(store)


def test_files_of_nobody_are_removed_but_for_those_being_written(store: Database) -> None:
    add(store, "media/gate/2026-11-29/e1.snapshot.webp")
    folder = store.folder / "media/gate/2026-11-29"
    (folder / "stray.mp4").write_bytes(b"x")
    part = folder / ".e1.clip.mp4.part"
    part.write_bytes(b"x")
    assert files.sweep(store, being_written=frozenset({part})) == 1
    assert sorted(each.name for each in folder.iterdir()) == [part.name, "e1.snapshot.webp"]


def test_only_the_service_s_user_can_look(store: Database) -> None:
    add(store, "media/gate/2026-11-29/e1.snapshot.webp")
    path = store.folder / "media/gate/2026-11-29/e1.snapshot.webp"
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_the_file_of_an_event_that_was_deleted_meanwhile_goes(store: Database) -> None:
    with store.write() as transaction:
        transaction.execute("DELETE FROM event WHERE id = 'e1'")
        file = MediaFile(path="media/x", bytes=1, sha256="", start_us=0, end_us=1, has_audio=False, codec="webp")
        assert not assets.ready(transaction, "e1", "snapshot", file)
