"""One source from its first window to its last: capture, encode, decide."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from types import TracebackType

from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.economy.counts import EconomyCounts
from ovavel.runtime.economy.encoder import EconomicEncoder
from ovavel.runtime.economy.plan import plan_economy
from ovavel.runtime.economy.settings import Economy, EconomyPlan
from ovavel.runtime.economy.work import work_of
from ovavel.runtime.pipeline.assembler import AssemblerCounts, WindowAssembler
from ovavel.runtime.pipeline.channels import Channel, channel_news
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.pipeline.preprocess import sound_rate
from ovavel.runtime.pipeline.rules.apply import bundle_rule
from ovavel.runtime.pipeline.tracker import EventRules, EventTracker
from ovavel.runtime.pipeline.window_queue import Pace, WindowQueue, capacity
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.session_info import SessionInfo, new_id, recording_id
from ovavel.runtime.sources import Fingerprinted, Source
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import LAG, DropCause, Event, Notice, Segment, SegmentScores, Update, Window
from ovavel.runtime.verification.open import Verified, look_up

__all__ = ["Session"]

_CLOSES_WITHIN_S = 2.0


class Session:
    """Watches one source with one bundle.

    ::

        with Session(Bundle.open("bundle"), "clip.mp4") as session:
            for event in session.events():
                print(event.state, event.label, event.start_s, event.end_s)

    Every second of the source ends in exactly one final `SegmentScores`, and every event that starts ends.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        source: Source | str | Path,
        *,
        backend: Backend | Verified | None = None,
        device: str = "auto",
        lag: int = LAG,
        rules: EventRules | None = None,
        channel: Channel = "auto",
        fusion: str | None = None,
        economy: Economy | None = None,
    ) -> None:
        """Open what is not open yet, and warm up the backend; the session is ready when this returns.

        `source` as a path or URL means `MediaSource`. A given `backend`, on its own or as `open_verified` returns it,
        stays open afterwards, so that many sessions can use it; without one, the session opens ONNX Runtime on `device`
        ("cpu", "cuda", "cuda:N" or "auto") for itself. `channel` is the channel of the sound to listen to, see
        `ChannelChooser`. `fusion` names the rule that decides (docs/method.md, Decision rules), by default the bundle's
        own; scores of another one have no probability. `economy` leaves out pictures where nothing happens
        (docs/economy.md), by default none.

        Many parameters: two are required; the rest have defaults and are independent of each other.

        Raises:
            BundleError, MediaError, DeviceError, MissingExtraError, UsageError: something cannot be opened.
        """
        self.stats = Stats()
        with ExitStack() as opened:
            if not isinstance(source, str | Path):
                opened.callback(source.close)
            self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
            if isinstance(source, str | Path):
                source = MediaSource(str(source))
                opened.callback(source.close)
            self.source: Source = source
            if backend is None:
                backend = open_backend(self.bundle, device=device)
                opened.callback(backend.close)
            verified = backend if isinstance(backend, Verified) else look_up(self.bundle, backend)
            self._backend = verified.backend
            vocabulary = self.bundle.vocabulary
            calibration = self.bundle.manifest.calibration
            rule = bundle_rule(self.bundle, fusion)
            self._backend.warm_up()
            self._encoder = Encoder(self._backend, self.stats.timings)
            opened.callback(self._encoder.close)
            plan = self._plan(economy or Economy(), rule)
            self.stats.economy = EconomyCounts(work_of(self.bundle.manifest.model.config, self._backend.info.precision))
            self._economy = EconomicEncoder(
                self._encoder.look, self._encoder.listen, plan, rule, vocabulary.names, self.stats.economy
            )
            self._localizer = Localizer(
                self._backend.head,
                vocabulary,
                lag=lag,
                calibration=self.bundle.manifest.calibration_for(rule),
                rule=rule,
                looking=None if plan.mode == "off" else self._economy,
            )
            self._tracker = EventTracker(
                vocabulary.background, rules, vocabulary_version=vocabulary.version, calibration=calibration
            )
            self._assembler = WindowAssembler(
                self.source.senses,
                live=not self.source.recorded,
                rate_hz=sound_rate(self._backend.encoders),
                channel=channel,
            )
            self.info = self._facts(verified, rule, channel, plan)
            """What stays the same while the session runs."""
            self._opened = opened.pop_all()
        room = capacity(sound_first=plan.sound)
        self._queue, self._pace = WindowQueue(room, live=self.source.live), Pace(room)
        self._done = -1  # newest window that is counted as decided
        self._left: deque[Notice] = deque()  # of windows without an update: for the last one
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._auto_channel = channel == "auto"
        self._capture_thread = threading.Thread(target=self._capture, name="ovavel-capture", daemon=True)

    @property
    def counts(self) -> AssemblerCounts:
        """What happened to every frame and sample of the source so far."""
        return self._assembler.counts

    def events(self) -> Iterator[Event]:
        """Event news as it arrives. Iterate this or `updates`, once."""
        for update in self.updates():
            yield from update.events

    def updates(self) -> Iterator[Update]:
        """One update per window, and a last one that ends open events. Iterate this or `events`, once.

        Raises:
            MediaError, DeviceError: the source or the backend failed; raised after the last update.
        """
        self._capture_thread.start()
        scores: list[SegmentScores] = []
        try:
            try:
                while windows := self._queue.take(self._backend.info.batch):
                    if self._stopped.is_set():
                        self._drop(windows, DropCause.STOPPED)
                    else:
                        yield from self._decide(windows)
                scores = self._localizer.flush()
            except Exception as error:  # noqa: BLE001 - it is raised below, once the open events have ended
                self._failure = self._failure or error
                self.stop()
                while windows := self._queue.take(self._backend.info.batch):
                    self._drop(windows, DropCause.STOPPED)
                waiting = self._localizer.stop_looking()
                with suppress(Exception):  # the head itself may have failed
                    scores = self._localizer.flush()
                for each in scores:
                    if each.index in waiting and "vision" in each.missing:
                        self.stats.picture_lost(counted=each.index <= self._done)
                        self.stats.economy.lost(1)
            self._capture_thread.join(_CLOSES_WITHIN_S)  # its last notices and counts belong to the last update
            self._economy.decided(scores)
            events = [*self._tracker.push(scores), *self._tracker.close()]
            yield Update(
                window=None,
                scores=tuple(scores),
                events=tuple(events),
                latency_ms=None,
                notices=_redacted(sorted((*self._left, *self._economy.notices()), key=lambda notice: notice.time_s)),
            )
        finally:
            self.stop()
        if self._failure:
            raise self._failure

    def stop(self) -> None:
        """End the session from any thread or signal handler: drop and count waiting windows, end open events."""
        self._stopped.set()
        self.source.close()
        self._queue.close()

    def close(self) -> None:
        """Stop, and close the backend if the session opened it."""
        self.stop()
        if self._capture_thread.is_alive():
            self._capture_thread.join(_CLOSES_WITHIN_S)
        self._opened.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _plan(self, economy: Economy, rule: Rule) -> EconomyPlan:
        backend = self._backend
        text = self.bundle.vocabulary.embeddings
        return plan_economy(economy, rule, backend.head, text, concurrent=backend.info.concurrent)

    def _facts(self, verified: Verified, rule: Rule, channel: Channel, plan: EconomyPlan) -> SessionInfo:
        manifest, vocabulary, backend = self.bundle.manifest, self.bundle.vocabulary, self._backend.info
        content = None
        if isinstance(self.source, Fingerprinted) and not self.source.live:  # live, windows may be dropped
            content = self.source.fingerprint()
        decides = (
            content,
            sorted(self.source.senses),
            self.bundle.sha256,
            vocabulary.version,
            backend.engine,
            sorted(backend.precision.items()),
            self._localizer.lag,
            rule.name if rule == manifest.fusion.decides else (rule.name, sorted(rule.parameters.items())),
            channel,
            asdict(self._tracker.rules),
            *plan.facts,
        )
        return SessionInfo(
            id=new_id() if content is None else recording_id(decides),
            started_at=datetime.now(UTC),
            source=redacted(self.source.name),
            senses=self.source.senses,
            live=self.source.live,
            labels=vocabulary.names,
            vocabulary_version=vocabulary.version,
            model=manifest.model.name,
            licence=manifest.model.licence,
            bundle_sha256=self.bundle.sha256,
            backend=backend,
            gate=verified.gate,
            gate_checked_here=verified.here,
            lag=self._localizer.lag,
            fusion=rule.name,
            channel=channel,
            rules=self._tracker.rules,
            economy=plan,
        )

    def _capture(self) -> None:
        """Runs in its own thread: source → assembler → queue."""
        try:
            chunks = iter(self.source.chunks())
            for chunk in chunks:
                self._put(self._assembler.push(chunk))
                if self._stopped.is_set():
                    break
            else:
                self._put(self._assembler.flush())
            # What the source reports while it is closed; one that goes on all the same is left.
            end_s = time.monotonic() + _CLOSES_WITHIN_S
            for chunk in takewhile(lambda _: time.monotonic() < end_s, chunks):
                self._put(self._assembler.push(chunk) if isinstance(chunk, Notice) else [])
        except Exception as error:  # noqa: BLE001 - raised again to the consumer of the updates
            if not self._stopped.is_set():
                self._failure = error
                with suppress(Exception):  # if a frame made it fail, the next one may fail too
                    self._put(self._assembler.flush())
        finally:
            self._left += self._assembler.notices
            self._queue.close()

    def _put(self, windows: list[Window]) -> None:
        for window in windows:
            if self._auto_channel and window.channel:
                self._auto_channel = False  # reported once
                news = Notice(time_s=window.start_s, message=channel_news(window.channel))
                window = replace(window, notices=(*window.notices, news))
            cause, late = self._pace.put(window.start_s)
            for dropped in self._queue.put(window, cause, late=late):
                self.stats.window_dropped(DropCause.STOPPED if self._stopped.is_set() else cause)
                if dropped is window:  # the queue is closed; windows it emptied still come out
                    self._left += window.notices

    def _drop(self, windows: Iterable[Window], cause: DropCause) -> None:
        """Count windows that will not be decided; those the queue emptied are counted already."""
        for window in windows:
            self._left += window.notices
            if window.dropped is None:
                self.stats.window_dropped(cause)

    def _decide(self, windows: list[Window]) -> Iterator[Update]:
        start_s = time.perf_counter()
        undecided = deque(windows)
        try:
            look, listen = self.info.economy.mode == "off", self._economy.listen
            segments = self._encoder.encode(windows, look=look, listen=listen)
            if len(segments) > 1 and self.info.economy.mode == "exact":
                self._economy.foresee(self._localizer.needed(segments))
            each_s = (time.perf_counter() - start_s) / len(windows)
            for segment in segments:
                update = self._update(undecided[0], segment, encode_s=each_s)
                undecided.popleft()
                with self._pace.reader:
                    yield update
        except Exception:
            self._drop(undecided, DropCause.BACKEND_FAILED)
            raise

    def _update(self, window: Window, segment: Segment, *, encode_s: float) -> Update:
        start_s = time.perf_counter()
        for gap in window.gaps:
            self.stats.gap(gap)
        for sense in segment.missing:
            self.stats.sense_missing(sense)
        if window.channel is not None:
            self.stats.heard(window.channel)
        segment = self._economy.arrived(segment, window.waveform, window.channel)
        with self.stats.timings.measure("head"):
            scores = self._localizer.push(segment)
        self._economy.decided(scores)
        with self.stats.timings.measure("decide"):
            events = self._tracker.push(scores)
        latency_ms = None
        # A window that was dropped is counted where that happened; it would make the encoder look fast.
        if window.dropped is None:
            # A file read at full speed only waits in the queue; a window with nothing new has no latency.
            if self.source.live and window.captured_s is not None:
                latency_ms = (time.monotonic() - window.captured_s) * 1e3
                self.stats.timings.add("latency", latency_ms)
            self.stats.window_done(encode_s + time.perf_counter() - start_s)
            self._done = window.index
        return Update(
            window=window,
            segment=self._localizer.newest,
            scores=tuple(scores),
            events=tuple(events),
            latency_ms=latency_ms,
            notices=_redacted((*window.notices, *self._economy.notices())),
        )


def _redacted(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    return tuple(replace(notice, message=redacted(notice.message)) for notice in notices)
