"""What is kept for how long, whatever was kept before."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.service import Everything, camera_facts, news, run_facts

from ovavel.service.config.site import Keep
from ovavel.service.evidence import files
from ovavel.service.evidence.retention import GB, NoRoomError, Retention, plan
from ovavel.service.store import assets, cameras, events, outbox
from ovavel.service.store.assets import MediaFile
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import Database, rows

DAY_US = 86_400_000_000
NOW_US = 1000 * DAY_US
MB = 1_000_000


def add(
    store: Database,
    number: int,
    *,
    days_ago: float,
    kinds: str = "clip snapshot",
    mb: int = 1,
    pinned: bool = False,
    sinks: tuple[str, ...] = (),
) -> None:
    """An event that ended so long ago, with files that claim to be so large."""
    end_us = NOW_US - round(days_ago * DAY_US)
    event = f"e{number}"
    with store.write() as transaction:
        for kind in ("start", "end"):
            facts = news(kind, number, start_us=end_us - 1, end_us=end_us)
            events.record(transaction, facts, event_id=event, now_us=end_us, sinks=[Everything(sink) for sink in sinks])
        if pinned:
            events.revise(transaction, event, "pin", now_us=end_us, pinned=True)
        assets.expect(transaction, event, kinds.split())  # type: ignore[arg-type]
        for kind in kinds.split():
            path = f"media/gate/day/{event}.{kind}"
            file = MediaFile(path=path, bytes=mb * MB, sha256="", start_us=0, end_us=1, has_audio=False, codec="")
            assets.ready(transaction, event, kind, file)  # type: ignore[arg-type]
            (store.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (store.folder / path).write_bytes(b"x")


def left(store: Database, kind: str) -> list[str]:
    query = "SELECT event_id FROM asset WHERE kind = ? AND state = 'ready' ORDER BY event_id"
    return [event for (event,) in rows(store.read, query, (kind,))]


def apply(
    store: Database, keep: Keep, monkeypatch: pytest.MonkeyPatch, *, free: float = 1e15, disk: int = 10**15
) -> Retention:
    """Apply the limits on a disk with so much space, of which each file that is removed gives back a megabyte."""
    space = [free]
    remove = files.remove

    def removed(path: Path) -> None:
        space[0] += MB * path.exists()
        remove(path)

    monkeypatch.setattr(files, "remove", removed)
    monkeypatch.setattr(files, "free_bytes", lambda _: round(space[0]))
    monkeypatch.setattr(files, "disk_bytes", lambda _: disk)
    one = Retention(store, keep)
    one.apply(now_us=NOW_US, monotonic_us=0)
    return one


def test_days_of_each_kind(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, days_ago in enumerate((400, 100, 20, 1)):
        add(store, number, days_ago=days_ago)
    add(store, 9, days_ago=500, pinned=True)
    apply(store, Keep(), monkeypatch)
    assert left(store, "clip") == ["e3", "e9"]
    assert left(store, "snapshot") == ["e2", "e3", "e9"]
    assert [event for (event,) in rows(store.read, "SELECT id FROM event ORDER BY id")] == ["e1", "e2", "e3", "e9"]
    assert not rows(store.read, "SELECT 1 FROM event_log WHERE event_id = 'e0'")
    assert {each.name for each in store.folder.glob("media/gate/day/*")} == {
        *("e3.clip", "e9.clip", "e2.snapshot", "e3.snapshot", "e9.snapshot")
    }
    gone = assets.find_asset(store.read, "e2", "clip")
    assert gone is not None
    assert (gone.state, gone.cause) == ("removed", "older than its days")


def test_what_a_clock_that_was_not_set_dated_has_no_age(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, days_ago in enumerate((999, 998, 20, 1)):
        add(store, number, days_ago=days_ago)
    one = apply(store, Keep(events_days=100_000), monkeypatch)
    assert left(store, "clip") == ["e3"], "there it is old"
    now_us = 20_000 * DAY_US  # 2024
    one.apply(now_us=now_us, monotonic_us=0)
    assert left(store, "clip") == ["e3"], "its days begin when the clock is set"
    assert len(rows(store.read, "SELECT 1 FROM event")) == 4
    with store.write() as transaction:
        transaction.execute("UPDATE event SET end_us = ? WHERE id = 'e2'", (now_us - 15 * DAY_US,))
        transaction.execute(
            "UPDATE asset SET state = 'ready', path = 'media/x' WHERE event_id = 'e2' AND kind = 'clip'"
        )
    one.apply(now_us=now_us, monotonic_us=0)
    assert left(store, "clip") == ["e3"], "and hide nothing that is old"


def test_a_clock_set_years_ahead_removes_nothing_for_its_age_before_a_day(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    later_us = 19_000 * DAY_US  # the tests' clock, as a clock that is set
    for number, days_ago in enumerate((400, 100, 20, 1)):
        add(store, number, days_ago=days_ago)
    with store.write() as transaction:
        transaction.execute("UPDATE event SET start_us = start_us + ?, end_us = end_us + ?", (later_us, later_us))
        transaction.execute("UPDATE run SET committed_us = ?", (NOW_US + later_us,))
    one = Retention(store, Keep())
    wrong_us = NOW_US + later_us + 2000 * DAY_US
    for hour in range(24):
        one.apply(now_us=wrong_us + hour * DAY_US // 24, monotonic_us=hour * DAY_US // 24)
    assert left(store, "clip") == ["e3"], "what was old before"
    assert left(store, "snapshot") == ["e2", "e3"]
    report = one.report(now_us=wrong_us)
    assert report.waits_s == 3600
    assert {each.event_id for each in report.next if each.due_us < wrong_us} == {"e2", "e3"}, "shown beforehand"
    one.apply(now_us=wrong_us + DAY_US, monotonic_us=DAY_US)
    assert left(store, "clip") == left(store, "snapshot") == []


def test_space_of_each_kind_the_oldest_go_first(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        add(store, number, days_ago=6 - number, mb=10, pinned=number == 0)
    apply(store, Keep(clips_gb=0.035, snapshots_gb=0.055), monkeypatch)
    assert left(store, "clip") == ["e0", "e4", "e5"], "what is pinned takes space, too"
    assert left(store, "snapshot") == ["e0", "e2", "e3", "e4", "e5"]


def test_on_a_full_disk_clips_go_before_snapshots(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        add(store, number, days_ago=6 - number)
    keep = Keep(min_free_gb=0.1)
    apply(store, keep, monkeypatch, free=100 * MB - 2.5 * MB)
    assert left(store, "clip") == ["e3", "e4", "e5"]
    assert len(left(store, "snapshot")) == 6
    apply(store, keep, monkeypatch, free=100 * MB - 5 * MB)
    assert left(store, "clip") == []
    assert left(store, "snapshot") == ["e2", "e3", "e4", "e5"]
    one = apply(store, keep, monkeypatch, free=50 * MB)
    assert left(store, "snapshot") == []
    assert len(rows(store.read, "SELECT 1 FROM event")) == 6, "events stay: they take no more of the disk"
    with pytest.raises(NoRoomError, match="nearly full"):
        one.make_room(1)


def test_of_a_small_disk_a_tenth_stays_free(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        add(store, number, days_ago=3 - number)
    one = apply(store, Keep(min_free_gb=1), monkeypatch, free=6 * MB, disk=50 * MB)
    assert one.min_free_bytes == 5 * MB
    assert left(store, "clip") == ["e0", "e1", "e2"]


def test_where_the_ballast_is_gone_too_the_oldest_events_make_room(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        add(store, number, days_ago=300 - number, kinds="", pinned=number == 0)
    add(store, 300, days_ago=299.5, kinds="", sinks=("mqtt",))
    apply(store, Keep(min_free_gb=0.1), monkeypatch, free=MB)
    kept = {event for (event,) in rows(store.read, "SELECT id FROM event")}
    assert violations(store.read) == [], "what is missing of the log is accounted for"
    assert 0 < len(kept) < 301, "no more than needed"
    assert {"e0", *(f"e{number}" for number in range(294, 300))} <= kept, "neither what is pinned nor the last days"
    assert "e300" in kept, "nor what somebody has not got yet"
    assert outbox.backlog(store.read, "mqtt").pending == 2


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kept=st.lists(
        st.tuples(
            st.floats(0, 40), st.integers(1, 20), st.booleans(), st.sampled_from(["clip", "sound", "clip snapshot"])
        ),
        max_size=12,
    ),
    clips_mb=st.integers(0, 100),
    snapshots_mb=st.integers(0, 60),
    lacking_mb=st.integers(-10, 100),
)
def test_any_plan_keeps_to_the_rules(
    tmp_path_factory: pytest.TempPathFactory,
    kept: list[tuple[float, int, bool, str]],
    clips_mb: int,
    snapshots_mb: int,
    lacking_mb: int,
) -> None:
    keep = Keep(clips_days=14, snapshots_days=30, clips_gb=clips_mb * MB / GB, snapshots_gb=snapshots_mb * MB / GB)
    with Database.open(tmp_path_factory.mktemp("store"), ballast_bytes=0) as store:
        with store.write() as transaction:
            cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
            cameras.open_run(transaction, run_facts("run-1", "gate"))
        for number, (days_ago, mb, pinned, kinds) in enumerate(kept):
            add(store, number, days_ago=days_ago, kinds=kinds, mb=mb, pinned=pinned)
        going = plan(store.read, keep, now_us=NOW_US, lacking_bytes=lacking_mb * MB)
        chosen = {each.asset for each in going}
        everything = rows(
            store.read,
            "SELECT asset.id, kind = 'clip', bytes, pinned, event.end_us FROM asset JOIN event ON event.id = event_id",
        )
    assert len(chosen) == len(going)
    for is_clip, days, limit in ((1, 14, clips_mb), (0, 30, snapshots_mb)):
        kind = [each for each in everything if each[1] == is_clip]
        stays = [each for each in kind if each[0] not in chosen]
        loose = [each for each in stays if not each[3]]
        assert all(not each[3] for each in kind if each[0] in chosen), "nothing that is pinned"
        assert all(each[4] > NOW_US - days * DAY_US for each in loose), "nothing beyond its days"
        assert not loose or sum(each[2] for each in stays) <= limit * MB, "no more than its space"
        newest_gone = max((each[4] for each in kind if each[0] in chosen), default=0)
        assert all(each[4] >= newest_gone for each in loose), "the oldest go first"
    freed = sum(each[2] for each in everything if each[0] in chosen)
    loose = [each for each in everything if each[0] not in chosen and not each[3]]
    assert freed >= lacking_mb * MB or not loose, "room is made while there is anything that may go"
    for_room = [each for each in going if each.why == "the disk is nearly full"]
    if any(each.kind != "clip" for each in for_room):
        assert not any(each[1] for each in loose), "no snapshot goes while there are clips"


def test_the_report_names_what_goes_next(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        add(store, number, days_ago=3 - number, mb=7, pinned=number == 0)
    retention = apply(store, Keep(), monkeypatch)
    report = retention.report(now_us=NOW_US)
    assert [(each.kind, each.files, each.bytes, each.pinned_bytes) for each in report.kinds] == [
        ("clip", 3, 21 * MB, 7 * MB),
        ("snapshot", 3, 21 * MB, 7 * MB),
    ]
    assert [(each.event_id, each.kind) for each in report.next] == [
        *(("e1", "clip"), ("e2", "clip"), ("e1", "snapshot"), ("e2", "snapshot")),
    ]
    assert report.next[0].due_us == NOW_US - 2 * DAY_US + 14 * DAY_US
    assert report.free_bytes == 10**15
    assert retention.report(now_us=NOW_US, upcoming=False) == msgspec.structs.replace(report, next=())
    assert report.store_bytes > 0
