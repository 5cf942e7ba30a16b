"""The demo's clip after a minute of nothing: the same events, and fewer pictures encoded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.demo_copies import EVENTS

from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.results import Localization, to_json
from ovavel.runtime.results.recording import localize_recording
from ovavel.runtime.session import Session
from ovavel.runtime.sinks.records import session_fields
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Chunk, EconomyMode, Frame, Gap, Samples, SkipCause

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
