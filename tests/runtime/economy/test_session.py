"""The demo's clip after a minute of nothing: the same events, and fewer pictures encoded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.demo_copies import EVENTS

from ovavel.runtime.archive.layout import model_of
from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.sink import ArchiveSink
from ovavel.runtime.archive.writer import ArchiveWriter
from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.commands.localize import Localize
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.errors import DeviceError, UsageError
from ovavel.runtime.results import Localization, to_json
from ovavel.runtime.results.recording import localize_recording
from ovavel.runtime.session import Session
from ovavel.runtime.sinks.records import session_fields
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import Chunk, DropCause, EconomyMode, Frame, Gap, Samples, SkipCause, Update

DEMO = Path(__file__).parents[3] / "eval" / "demo" / "assets"
QUIET_S = 60


class AfterNothing:
    """A minute of one picture, with the noise of its camera, in silence; then a recording."""

    def __init__(self, recording: Path) -> None:
        self._source = MediaSource(str(recording))
        self.name, self.senses = "after nothing", self._source.senses
        self.live, self.recorded, self.duration_s = False, True, None

    def chunks(self) -> Iterator[Chunk]:
        rng = np.random.default_rng(0)
        scene = np.kron(rng.integers(60, 200, (15, 20, 3)), np.ones((16, 16, 1)))
        for second in range(QUIET_S):
            image = np.clip(scene + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8)
            yield Frame(time_s=second + 0.5, captured_s=0.0, image=lambda image=image: image)
            yield Samples(
                time_s=float(second), captured_s=0.0, waveform=np.zeros((1, 16_000), np.float32), rate_hz=16_000
            )
        for chunk in self._source.chunks():
            if isinstance(chunk, Frame | Samples):
                yield replace(chunk, time_s=chunk.time_s + QUIET_S)
            elif isinstance(chunk, Gap):
                yield replace(chunk, start_s=chunk.start_s + QUIET_S)

    def fingerprint(self) -> str:
        return "a minute of nothing, then the demo's clip"

    def close(self) -> None:
        self._source.close()


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    opened = open_backend(Bundle.open(DEMO / "bundle"), device="cpu", threads=1)
    yield opened
    opened.close()


def localized(backend: Backend, mode: EconomyMode, fusion: str | None) -> Localization:
    source = AfterNothing(DEMO / "clip.mp4")
    bundle = Bundle.open(DEMO / "bundle")
    return localize_recording(bundle, source, backend=backend, fusion=fusion, economy=Economy(mode=mode))


def test_exact_finds_the_same_events_with_fewer_pictures(backend: Backend) -> None:
    off, exact = (localized(backend, mode, "agreement") for mode in ("off", "exact"))
    assert off.events == exact.events
    assert len(off.events) == 4
    assert [s.label for s in off.scores] == [s.label for s in exact.scores]
    assert off.economy is None
    assert exact.economy is not None
    assert exact.economy.pictures == 100
    assert exact.economy.encoded == 49, "the clip, and the nine seconds before its first sound"
    assert exact.economy.most_at_once == 10
    assert exact.economy.saved is not None
    assert 0 < exact.economy.saved < 1
    assert off.info.id != exact.info.id
    document = json.loads(to_json(exact))
    assert document["economy_mode"] == "exact"
    assert document["economy"]["encoded"] == 49
    first, last = document["segments"][0], document["segments"][-1]
    assert first["skipped"] == str(SkipCause.SOUND)
    assert first["missing"] == []
    assert first["classes"][0]["vision_similarity"] is None
    assert first["classes"][0]["audio_similarity"] is not None
    assert last["skipped"] is None


def test_auto_is_the_same_when_it_is_played_again(backend: Backend) -> None:
    once, again = (localized(backend, "auto", "positive") for _ in range(2))
    assert to_json(once) == to_json(again)
    assert once.economy is not None
    assert once.economy == again.economy
    assert once.economy.reused > 0
    assert 0 < once.economy.sounds_reused < once.economy.sounds == once.economy.pictures
    assert once.economy.encoded + once.economy.reused == once.economy.pictures, "too soon to judge by sound"
    assert [(e.start_s - QUIET_S, e.end_s - QUIET_S, e.label) for e in once.events] == EVENTS


def test_a_live_source_is_watched_exactly_however_slow_the_encoders_are(backend: Backend) -> None:
    """No picture is encoded to find out whether a live decision can wait for ten."""
    source = AfterNothing(DEMO / "clip.mp4")
    source.live = True
    economy = Economy(mode="exact")
    with Session(DEMO / "bundle", source, backend=backend, fusion="agreement", economy=economy) as session:
        assert session.info.economy.mode == "exact"
        assert session.stats.timings.stages() == ()


def test_an_encoder_that_fails_when_sound_wakes_it_loses_that_second_and_says_so(backend: Backend) -> None:
    def fails(_: NDArray[np.float32]) -> NDArray[np.float32]:
        raise DeviceError("the GPU fell off the bus")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "vision", fails)
        patch.setattr(backend, "warm_up", lambda: None)
        source, economy = AfterNothing(DEMO / "clip.mp4"), Economy(mode="exact")
        updates: list[Update] = []
        with Session(DEMO / "bundle", source, backend=backend, fusion="agreement", economy=economy) as session:
            with pytest.raises(DeviceError, match="fell off the bus"):
                updates.extend(session.updates())
    *quiet, lost = (each for update in updates for each in update.scores if each.final)
    assert all(each.skipped == SkipCause.SOUND and not each.missing for each in quiet)
    assert (lost.skipped, lost.missing, lost.label) == (None, ("vision",), session.bundle.vocabulary.background)
    assert len(quiet) >= QUIET_S
    stats = session.stats
    assert stats.windows == len(quiet)
    assert stats.windows + sum(stats.dropped.values()) == session.counts.windows
    assert stats.dropped[DropCause.BACKEND_FAILED] == 1
    assert stats.missing["vision"] == 1
    assert stats.economy.figures.skipped == {"background sound": len(quiet)}


def test_a_picture_lost_after_its_second_was_counted_moves_to_the_dropped_ones() -> None:
    stats = Stats()
    stats.window_done(0.1)
    stats.window_done(0.1)
    stats.picture_lost(counted=True)
    assert (stats.windows, stats.dropped, stats.missing) == (1, {"backend failed": 1}, {"vision": 1})


def test_an_archive_of_a_session_that_leaves_pictures_out_is_refused(backend: Backend, tmp_path: Path) -> None:
    bundle = Bundle.open(DEMO / "bundle")
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def archived(economy: Economy) -> Localization:
        sink = ArchiveSink(ArchiveWriter(tmp_path, "yard", model_of(bundle)), backend, lag=2, start=start)
        source = MediaSource(str(DEMO / "clip.mp4"))
        return localize_recording(
            bundle, source, backend=backend, fusion="agreement", lag=2, economy=economy, sinks=[sink]
        )

    with pytest.raises(UsageError, match=r'every_picture="the archive"'):
        archived(Economy(mode="exact"))
    assert archived(Economy(mode="exact", every_picture="the archive")).info.economy.mode == "off"
    (day,) = Archive(tmp_path).days()
    with day.open() as files:
        assert len(list(files.seconds(0, 100))) == 40


def test_why_economy_does_not_run_is_said_once_for_many_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [tmp_path / name for name in ("a.mp4", "b.mp4")]
    for clip in clips:
        shutil.copy(DEMO / "clip.mp4", clip)
    out = tmp_path / "out"
    command = Localize(files=tuple(clips), bundle=DEMO / "bundle", fusion="published", out=out, format=("json",))
    assert command.run() == 0
    assert capsys.readouterr().out.count("economy:") == 1
    notes = [json.loads(path.read_bytes())["economy_note"] for path in sorted(out.glob("*.json"))]
    assert len(notes) == 2
    assert all("two negative similarities" in note for note in notes)


def test_a_rule_that_sound_cannot_settle_looks_at_everything_and_says_why(backend: Backend) -> None:
    settings = {"backend": backend, "fusion": "published"}
    with (
        Session(DEMO / "bundle", DEMO / "clip.mp4", economy=Economy(mode="exact"), **settings) as session,  # type: ignore[arg-type]
        Session(DEMO / "bundle", DEMO / "clip.mp4", **settings) as plain,  # type: ignore[arg-type]
    ):
        fields = session_fields(session.info)
        assert session.info.id == plain.info.id, "what runs decides, not what was asked for"
    assert fields["economy_mode"] == "off"
    assert "two negative similarities" in fields["economy_note"]
