"""The service with economy: the same decisions with fewer pictures, whatever the encoder does meanwhile."""

from __future__ import annotations

import html
import json
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from support.economy_gates import passed_gate
from support.renamed import CAMERA, DRUM, renamed_site
from support.running_site import running
from support.served import served
from support.service import CLIP, DEMO, site, until
from support.web import ask
from support.windows import clip_after_nothing, opened, waiting

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.economy.encoder import EconomicEncoder
from ovavel.runtime.errors import InputError, UnverifiedError
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.types import Notice
from ovavel.service.capture.feed import Ended
from ovavel.service.capture.messages import Captured
from ovavel.service.config.site import Camera, Keep
from ovavel.service.encoding.remote import EncoderLost
from ovavel.service.store import accounts
from ovavel.service.store.database import rows
from ovavel.service.watch.economy.site import check_names_may_change
from ovavel.service.watch.queue import ROOM, ROOM_TO_WAKE, Waiting
from ovavel.service.watch.service import Service

pytestmark = pytest.mark.timeout(300)

QUIET_S = 15
NO_ARCHIVE = Keep(archive_gb=0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo's bundle, which decides by agreement."""
    path = tmp_path_factory.mktemp("agreement") / "bundle"
    shutil.copytree(DEMO / "bundle", path)
    Bundle.open(path).save_calibration(None, Rule(kind="agreement"))
    return str(path)


@pytest.fixture(scope="module")
def windows(bundle: str) -> list[Captured]:
    return clip_after_nothing(CLIP, Bundle.open(Path(bundle)).manifest.encoders, QUIET_S)[: QUIET_S + 20]


class Decided(NamedTuple):
    """What became of one stream."""

    events: list[Any]
    accounts: dict[str, int]
    """Decided seconds as "", dropped ones by cause."""
    economy: Any


@contextmanager
def idle(folder: Path, bundle: str, *cameras: str, **changes: Any) -> Iterator[Service]:
    """A service whose threads do not run: what its cameras bring comes from the test."""
    watched = [Camera(id=each, source=CLIP) for each in cameras or ("one",)]
    with Service(site(folder, *watched, bundle=bundle, **{"keep": NO_ARCHIVE, **changes})) as service:
        service.decider.decide([Waiting(each.id, opened(), None) for each in watched])
        yield service


def feed(service: Service, windows: list[Captured], camera: str = "one") -> None:
    for each in waiting(camera, windows):
        service.decider.decide([each])


def decided(service: Service, camera: str = "one") -> Decided:
    service.decider.decide([Waiting(camera, Ended("end of media", ""), None)])
    events = rows(
        service.store.read,
        "SELECT label, start_us, end_us, state FROM event WHERE camera_id = ? ORDER BY start_us, label",
        (camera,),
    )
    found = accounts.read_accounts(service.store.read, camera, from_us=0, to_us=2**62)
    counts = {"": sum(each.final for each in found)}
    for each in found:
        for cause, count in each.dropped.items():
            counts[cause] = counts.get(cause, 0) + count
    (watched,) = [each for each in service.site.camera if each.id == camera]
    return Decided(events, counts, service.economies.report(watched))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, bundle: str, windows: list[Captured]) -> Decided:
    """What is decided with every picture."""
    with idle(tmp_path_factory.mktemp("plain"), bundle, economy="off") as service:
        feed(service, windows)
        found = decided(service)
    assert len(found.events) >= 2
    assert found.accounts == {"": len(windows)}
    assert (found.economy.mode, found.economy.why_not, found.economy.since_start.saved) == ("off", "", 0)
    return found


def test_exact_decides_the_same_with_fewer_pictures(
    tmp_path: Path, bundle: str, windows: list[Captured], plain: Decided
) -> None:
    sent: list[int] = []
    with idle(tmp_path, bundle) as service:
        ask_encoder = service.encoder.encode

        def counted(frames: list[Any], sounds: list[Any]) -> Any:
            sent.append(len(frames))
            return ask_encoder(frames, sounds)

        service.encoder.encode = counted  # type: ignore[method-assign]
        assert service.queue.room == ROOM_TO_WAKE
        feed(service, windows[: QUIET_S - 1])
        assert sum(sent) == 0, "nothing to hear, so nothing is looked at"
        now = service.board.seconds("one")[-1]
        assert (now.skipped, now.seen, now.missing) == ("background sound", (), ())
        feed(service, windows[QUIET_S - 1 :])
        found = decided(service)
    assert (found.events, found.accounts) == (plain.events, plain.accounts)
    assert found.economy.mode == "exact"
    assert found.economy.why_not == ""
    since = found.economy.since_start
    assert since.pictures == len(windows)
    assert since.encoded == sum(sent) < len(windows)
    assert max(sent) == 10, "the pictures of a whole buffer, in one question"
    assert since.skipped["background sound"] >= QUIET_S - 3
    assert (since.lost, since.reused, since.audited) == (0, 0, 0)
    assert 0 < since.saved < 1
    assert found.economy.last_hour == since


def test_what_several_cameras_need_at_once_is_one_question(
    tmp_path: Path, bundle: str, windows: list[Captured], plain: Decided
) -> None:
    asked: list[int] = []
    with idle(tmp_path, bundle, "one", "two") as service:
        ask_encoder = service.encoder.encode

        def counted(frames: list[Any], sounds: list[Any]) -> Any:
            asked.extend([len(frames)] if frames else [])
            return ask_encoder(frames, sounds)

        service.encoder.encode = counted  # type: ignore[method-assign]
        for one, two in zip(waiting("one", windows), waiting("two", windows), strict=True):
            service.decider.decide([one, two])
        both = [decided(service, camera) for camera in ("one", "two")]
    for found in both:
        assert (found.events, found.accounts) == (plain.events, plain.accounts)
    assert max(asked) == 20
    assert sum(asked) == sum(found.economy.since_start.encoded for found in both), "none is encoded twice"


def test_an_encoder_that_dies_while_pictures_wait_costs_what_it_was_asked_for(
    tmp_path: Path, bundle: str, windows: list[Captured], plain: Decided
) -> None:
    with idle(tmp_path, bundle) as service:
        feed(service, windows[: QUIET_S - 2])
        assert service.encoder.pid
        os.kill(service.encoder.pid, signal.SIGKILL)
        feed(service, windows[QUIET_S - 2 :])
        found = decided(service)
        assert service.encoder.restarts == 1
    assert found.accounts == {"": len(windows) - 1, "backend failed": 1}, "the sound that it was asked for"
    assert found.events == plain.events, "the pictures that waited were encoded by the next one"


def test_pictures_that_cannot_be_encoded_are_counted_and_are_no_background(
    tmp_path: Path, bundle: str, windows: list[Captured], monkeypatch: pytest.MonkeyPatch
) -> None:
    with idle(tmp_path, bundle) as service:
        ask_encoder, failed = service.encoder.encode, list[int]()

        def failing(frames: list[Any], sounds: list[Any]) -> Any:
            if frames and len(failed) < 2:
                failed.append(len(frames))
                raise EncoderLost("it is gone")
            return ask_encoder(frames, sounds)

        monkeypatch.setattr(service.encoder, "encode", failing)
        feed(service, windows)
        found = decided(service)
    assert failed == [10, 10], "it is asked again"
    # Seven of the ten were final already, by their sound; that they are not seen as context costs nothing but context.
    # Sound had settled two of the others, but later seconds could still unsettle them (docs/service.md, Economy).
    assert found.accounts == {"": len(windows) - 3, "backend failed": 3}
    assert found.economy.since_start.lost == 10
    assert found.economy.since_start.saved < 1 - found.economy.since_start.encoded / len(windows)


@pytest.mark.parametrize("lost", [False, True])
def test_what_the_last_seconds_of_a_run_bring_up_is_shown_and_logged(
    tmp_path: Path,
    bundle: str,
    windows: list[Captured],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lost: bool,
) -> None:
    flush = Localizer.flush

    def flushed(localizer: Localizer) -> Any:
        monkeypatch.setattr(EconomicEncoder, "notices", lambda _: (Notice(time_s=0.0, message="it drifted"),))
        if lost:
            raise EncoderLost("it is gone")
        return flush(localizer)

    monkeypatch.setattr(Localizer, "flush", flushed)
    with idle(tmp_path, bundle) as service, caplog.at_level(logging.INFO):
        feed(service, windows[:3])
        service.decider.decide([Waiting("one", Ended("camera offline", ""), None)])
        assert service.board.notices("one") == ("it drifted",)
        assert [each.camera for each in caplog.records if each.message == "it drifted"] == ["one"]
        assert service.board.seconds("one")[-1].final is not lost


def test_an_archive_needs_every_picture_and_the_page_says_so(tmp_path: Path, bundle: str) -> None:
    with served(tmp_path, users=False, bundle=bundle) as here:
        (camera,) = json.loads(ask(here.port, "/api/v1/cameras")[2])
        economy = camera["economy"]
        assert (economy["asked"], economy["mode"]) == ("exact", "off")
        assert economy["why_not"] == "the archive needs every picture"
        here.service.decider.decide([Waiting("one", opened(), None)])
        assert here.service.queue.room == ROOM
        assert "the archive needs every picture" in html.unescape(ask(here.port, "/health")[2].decode())


def test_what_was_saved_is_in_the_api_the_metrics_and_on_the_page(
    tmp_path: Path, bundle: str, windows: list[Captured]
) -> None:
    with served(tmp_path, users=False, bundle=bundle, keep=NO_ARCHIVE) as here:
        service = here.service
        at_the_start = service.fits
        assert at_the_start.at_present == at_the_start.worst, "nothing is known of what will be saved"
        service.decider.decide([Waiting("one", opened(), None)])
        for again in range(5):  # a minute and more
            quiet = [_moved(each, again * QUIET_S) for each in windows[:QUIET_S]]
            feed(service, quiet)
        (camera,) = json.loads(ask(here.port, "/api/v1/cameras")[2])
        hour = camera["economy"]["last_hour"]
        assert (hour["pictures"], hour["encoded"]) == (5 * QUIET_S, 0)
        assert hour["skipped"] == {"background sound": 5 * QUIET_S - 2}, "two are not final yet"
        capacity = json.loads(ask(here.port, "/api/v1/capacity")[2])
        assert capacity["cameras_at_present"] > capacity["cameras_worst"] > 0
        metrics = ask(here.port, "/metrics")[2].decode()
        assert f'ovavel_capacity_cameras{{case="present"}} {capacity["cameras_at_present"]:.1f}' in metrics
        assert f'ovavel_capacity_cameras{{case="worst"}} {capacity["cameras_worst"]:.1f}' in metrics
        assert 'ovavel_economy_info{asked="exact",camera="one",mode="exact"} 1.0' in metrics
        assert f'ovavel_economy_pictures_total{{camera="one"}} {5 * QUIET_S}.0' in metrics
        assert 'ovavel_economy_pictures_encoded_total{camera="one"} 0.0' in metrics
        skipped = f'{{camera="one",cause="background sound"}} {5 * QUIET_S - 2}.0'
        assert f"ovavel_economy_skipped_seconds_total{skipped}" in metrics
        assert 'ovavel_economy_saved_ratio{camera="one",over="hour"} 0.' in metrics
        page = ask(here.port, "/health")[2].decode()
        assert f"background sound {5 * QUIET_S - 2}" in page
        for count in (capacity["cameras_at_present"], capacity["cameras_worst"]):
            assert f"<strong>{count}</strong>" in page


def _moved(window: Captured, seconds: int) -> Captured:
    at_us = window.utc_us + seconds * 1_000_000
    return msgspec.structs.replace(
        window, index=window.index + seconds, start_s=window.start_s + seconds, utc_us=at_us, monotonic_us=at_us
    )


def test_auto_needs_its_gate_and_reports_its_audits(
    tmp_path: Path, bundle: str, windows: list[Captured], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnverifiedError, match="has not been compared with all pictures encoded"):
        Service(site(tmp_path, Camera(id="one", source=CLIP, economy="auto"), bundle=bundle))
    path = tmp_path / "bundle"
    shutil.copytree(bundle, path)
    Bundle.open(path).save_economy_gate(passed_gate(Bundle.open(path)))
    with idle(tmp_path, str(path), economy="auto") as service:
        feed(service, windows[:QUIET_S])
        found = decided(service)
    assert (found.economy.mode, found.economy.since_start.encoded < QUIET_S) == ("auto", True)
    with idle(tmp_path / "archived", str(path), economy="auto", keep=Keep()) as service:
        ask_encoder, random = service.encoder.encode, np.random.default_rng(0)

        def drifting(frames: list[Any], sounds: list[Any]) -> Any:
            seen, heard = ask_encoder(frames, sounds)
            rows = [random.standard_normal(each.shape).astype(np.float32) for each in seen]
            return [each / np.linalg.norm(each) for each in rows], heard

        monkeypatch.setattr(service.encoder, "encode", drifting)
        feed(service, [*windows[:QUIET_S], *(_moved(each, QUIET_S) for each in windows[:6])])
        (notice,) = service.board.notices("one")
        found = decided(service)
    since = found.economy.since_start
    assert found.economy.why_not == "the archive needs every picture"
    assert (since.pictures, since.encoded, since.reused) == (21, 2, 19), "one picture, and an audit of its twentieth"
    assert (since.audited, since.audits_failed, since.skipped) == (2, 1, {}), "the twentieth sound, too"
    assert "a picture that was taken for unchanged drifted" in notice
    assert since.drift_p99 is not None
    assert since.drift_p99 > 0.002


def test_auto_is_checked_when_a_site_or_its_names_change(tmp_path: Path) -> None:
    path = renamed_site(tmp_path, DRUM, camera=f"{CAMERA}\nmedia = false")
    with running(path) as (service, reloader):
        path.write_text(path.read_text() + '\neconomy = "auto"')
        for act in (reloader.check, reloader.reload):
            with pytest.raises(UnverifiedError, match=r"--economy auto of the bundle .* has not been compared"):
                act()
        assert "has not been compared" in service.rejected
        bundle = Bundle.open(tmp_path / "bundle")
        gated = bundle.save_economy_gate(passed_gate(bundle))
        assert reloader.reload().restarted == ("gate",)
        until(lambda: service.economies.report(service.site.camera[0]).mode == "auto")
        with pytest.raises(InputError, match="camera 'gate' was compared with the present names"):
            check_names_may_change(service.site)
        gated.save_vocabulary(gated.vocabulary.background_added(["silence"], gated.vocabulary.embeddings[:1]))
        with pytest.raises(UnverifiedError, match="was compared with other text embeddings"):
            reloader.reload()


def test_the_service_itself_saves_pictures(tmp_path: Path, bundle: str) -> None:
    """With its processes: capture, encoder, deciding thread."""
    camera = Camera(id="one", source=CLIP, loop=True, media=False)
    with Service(site(tmp_path, camera, bundle=bundle)) as service:
        service.start()
        until(lambda: service.economies.report(camera).since_start.skipped)
        until(lambda: service.economies.report(camera).since_start.encoded)
        assert service.failure is None
