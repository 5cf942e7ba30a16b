"""Names that change while a service runs: no camera is interrupted, no second is lost, and nothing else may change."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.renamed import CAMERA, DOG, DRUM, renamed_site
from support.running_site import decided, open_events, running, runs
from support.service import until

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.commands.vocab import Add, Remove
from ovavel.runtime.errors import InputError
from ovavel.service.config.changes import Changes
from ovavel.service.store import accounts
from ovavel.service.store.database import rows
from ovavel.service.watch.service import Service

pytestmark = pytest.mark.timeout(300)


def ended(service: Service, label: str) -> list[str | None]:
    query = "SELECT end_cause FROM event WHERE label = ? AND state = 'ended' ORDER BY start_us"
    return [cause for (cause,) in rows(service.store.read, query, (label,))]


def test_names_come_and_go_while_two_cameras_watch(tmp_path: Path) -> None:
    path = renamed_site(tmp_path, DOG, camera=f"{CAMERA}\n{CAMERA.replace('gate', 'yard')}")
    with running(path) as (service, reloader):
        for camera in ("gate", "yard"):
            until(lambda camera=camera: decided(service, camera) > 2)  # type: ignore[misc]
        pids = [feed.pid for feed in service.feeds.values()]
        encoder = service.encoder.pid
        assert reloader.check() == Changes()

        Add(names=(DOG,), bundle=tmp_path / "bundle").run()
        version = Bundle.open(tmp_path / "bundle").vocabulary.version
        assert reloader.check() == Changes(names_added=(DOG,), vocabulary=version)
        assert reloader.check().text == f"names: +{DOG}"
        assert service.bundle.vocabulary.version != version, "a check changes nothing"
        assert reloader.reload().names_added == (DOG,)
        assert reloader.reload() == Changes(), "it is in force"
        dog = (  # a second of it is final
            "SELECT 1 FROM event JOIN run ON run.id = run_id WHERE state = 'open' AND committed_us > start_us "
            "AND event.camera_id = ? AND label = ?"
        )
        for camera in ("gate", "yard"):
            until(lambda camera=camera: rows(service.store.read, dog, (camera, DOG)))  # type: ignore[misc]
            assert [cause for _, cause in runs(service, camera)] == ["names changed", None]
        seconds = service.board.seconds("gate")
        assert DOG in {named.label for second in seconds for named in second.seen}

        Remove(names=(DOG,), bundle=tmp_path / "bundle").run()
        assert reloader.reload().text == f"names: −{DOG}"
        until(lambda: len(runs(service, "gate")) == 3)
        until(lambda: not rows(service.store.read, "SELECT 1 FROM event WHERE state = 'open' AND label = ?", (DOG,)))
        assert "names changed" in ended(service, DOG)
        was = decided(service, "gate")
        until(lambda: decided(service, "gate") > was + 2)

        assert ([feed.pid for feed in service.feeds.values()], service.encoder.pid) == (pids, encoder)
        for account in accounts.read_accounts(service.store.read, "gate", from_us=0, to_us=2**62):
            assert {cause for cause, us in account.gap_us.items() if us} <= {"starting"}
            assert account.dropped.keys() <= {"encoder too slow"}, "which is another matter"
        assert service.failure is None


def test_a_site_file_that_is_broken_by_now_keeps_no_name_out(tmp_path: Path) -> None:
    path = renamed_site(tmp_path, DRUM)
    with running(path) as (service, reloader):
        path.write_text("camera = [")
        Add(names=(DRUM,), bundle=tmp_path / "bundle").run()
        assert reloader.read_names().text == f"names: +{DRUM}"
        assert DRUM in service.bundle.vocabulary.names
        until(lambda: DRUM in {each.label for each in service.board.seconds("gate")})
        until(lambda: open_events(service, "gate"))


def test_a_sink_that_wants_a_name_keeps_it(tmp_path: Path) -> None:
    sink = f'[[sink]]\nkind = "jsonl"\nid = "file"\npath = "events.jsonl"\nlabels = ["{DOG}"]'
    path = renamed_site(tmp_path, DRUM, more=sink)
    with running(path) as (service, reloader):
        Remove(names=(DOG,), bundle=tmp_path / "bundle").run()
        for act in (reloader.check, reloader.reload, reloader.read_names):
            with pytest.raises(InputError, match=f"sink 'file': the bundle's vocabulary has no name '{DOG}'"):
                act()
        assert DOG in service.bundle.vocabulary.names
        assert "has no name" in service.rejected
        path.write_text(path.read_text().replace(DOG, DRUM))
        Add(names=(DRUM,), bundle=tmp_path / "bundle").run()
        changes = reloader.reload()
        assert (changes.names_added, changes.names_removed, changes.opened) == ((DRUM,), (DOG,), ("file",))
