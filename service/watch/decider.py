"""Decides for all cameras in one thread: windows are encoded together, and decisions committed together."""

from __future__ import annotations

import contextlib
import logging
import math
import queue as queues
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import OutputError
from ovavel.runtime.session_info import new_id
from ovavel.runtime.types import DropCause, GapCause, Segment
from ovavel.service.archive.archivist import Archivist, NoArchive
from ovavel.service.capture.feed import REMOVED, SWITCHED_OFF, Ended
from ovavel.service.capture.messages import Captured, Opened
from ovavel.service.config.site import Camera
from ovavel.service.encoding.remote import EncoderLost, RemoteEncoder
from ovavel.service.evidence.keeper import Keeper, RunEvidence
from ovavel.service.store.accounts import advance
from ovavel.service.store.cameras import Anchor, add_anchor, open_run, remove_camera
from ovavel.service.store.care.recovery import end_left
from ovavel.service.store.database import Database, Transaction
from ovavel.service.store.outbox import Subscriber
from ovavel.service.store.seconds import keep_vocabulary
from ovavel.service.watch.commits import Commits, commit
from ovavel.service.watch.economy.site import Economies
from ovavel.service.watch.encode import Encoded, encode
from ovavel.service.watch.queue import ROOM, ROOM_TO_WAKE, FairQueue, Waiting
from ovavel.service.watch.runs.begin import RunParts
from ovavel.service.watch.runs.camera_watch import CameraWatch, Moment, Seen
from ovavel.service.watch.runs.wall_clock import WallClock

__all__ = ["Decider"]

STARTING = "starting"
NAMES_CHANGED = "names changed"
ENCODER_FAILED, STORE_FAILED = "encoder failed", "store failed"
_log = logging.getLogger(__name__)

_IDLE_S = 1.0
_ACCOUNT_EVERY_S = 10.0

Shown = Callable[[str, Captured | None, Seen], None]
"""Called with the camera, its window and what that brought; the end of a run has no window."""


class Decider:
    """Turns what waits in the queue into rows of the store."""

    def __init__(
        self,
        store: Database,
        bundle: Bundle,
        encoder: RemoteEncoder,
        queue: FairQueue,
        cameras: Sequence[Camera],
        *,
        sinks: Sequence[Subscriber],
        shown: Shown,
        restart: Callable[[str], None],
        keeper: Keeper | None = None,
        archive: Archivist | NoArchive = NoArchive(),  # noqa: B008 - it holds nothing
        economies: Economies | None = None,
        release: Callable[[str, int], None] = lambda *_: None,
        removed: Callable[[str], None] = lambda *_: None,
    ) -> None:
        """Decide with the vocabulary and the rule of `bundle`.

        Many parameters: each is another part of the service, which the decider alone brings together.

        Args:
            store: where it is kept.
            bundle: that `encoder` runs.
            encoder: shared by all cameras.
            queue: of what the cameras bring.
            cameras: to decide for; the store knows them already.
            sinks: those that may hear of events.
            shown: shows what was decided; must not block.
            restart: starts a camera again whose run could not continue.
            keeper: keeps what remains of events; None: nothing.
            archive: keeps what each second looked and sounded like.
            economies: which pictures are encoded; None: all.
            release: called with a camera and the number of its child when no more clips of it will be asked for.
            removed: called with a camera that was removed once nothing of it is left to be done.
        """
        self._economies = economies or Economies(None, bundle, encoder)
        self._keeper, self._archive, self._release, self._removed = keeper, archive, release, removed
        self._leaving: set[str] = set()  # were removed, and the store does not know it yet
        self._changes: queues.SimpleQueue[Callable[[], None]] = queues.SimpleQueue()
        self._evidence: dict[str, RunEvidence] = {}
        self._children: dict[str, int] = {}
        self._store, self._parts, self._encoder, self._queue = store, RunParts(bundle, encoder), encoder, queue
        self._commits = Commits(store)
        self._sinks, self._shown, self._restart = tuple(sinks), shown, restart
        self._cameras = {camera.id: camera for camera in cameras}
        self._watches: dict[str, CameraWatch] = {}
        self._ending: dict[str, CameraWatch] = {}  # have ended, and the store does not know it yet
        self._why: dict[str, str] = {}  # why the last run of a camera ended
        self._given_up: dict[str, str] = {}  # why its capture was made to end, of which it will say that it died
        self._accounted_s, self._reported_trouble = -math.inf, ""
        self.turned_s = time.monotonic()
        """When it last took what waited, on the monotonic clock: a decider that lives does so every second."""

    @property
    def trouble(self) -> str:
        """Why the store could not be written last time; empty where it could."""
        watches = [*self._watches.values(), *self._ending.values()]
        return next((watch.trouble for watch in watches if watch.trouble), "")

    def change(self, cameras: Sequence[Camera], sinks: Sequence[Subscriber]) -> None:
        """Decide for these cameras and report to these sinks, from the next window on. Called from any thread.

        Runs that are open continue. A camera that is not among them is decided for until its feed has ended.
        """
        self._changes.put(partial(self._change, cameras, sinks))

    def _change(self, cameras: Sequence[Camera], sinks: Sequence[Subscriber]) -> None:
        self._cameras |= {camera.id: camera for camera in cameras}
        self._sinks = tuple(sinks)
        for watch in (*self._watches.values(), *self._ending.values()):
            watch.sinks = self._sinks

    def rename(self, bundle: Bundle) -> None:
        """Decide with the vocabulary of `bundle`, which differs in nothing else. Called from any thread.

        Each camera begins another run without losing a second: those that are not final yet are decided on with the
        new names.
        """
        self._changes.put(partial(self._rename, bundle))

    def _rename(self, bundle: Bundle) -> None:
        self._parts = RunParts(bundle, self._encoder)
        self._economies.rename(bundle)
        for camera, watch in list(self._watches.items()):
            try:
                self._economies.renew(camera, watch.economy)
            except EncoderLost:
                self._abandon(camera)
                continue
            facts = self._parts.facts(camera, new_id(), watch.decided_us)
            watch.rename(
                bundle.vocabulary, self._parts.tracker(self._cameras[camera]), facts, NAMES_CHANGED, Moment.now()
            )
            self._commits.hold(watch, lambda: None)
        self._queue.room = ROOM_TO_WAKE if self._economies.wake else ROOM

    def run(self) -> None:
        """Decide until the queue is closed and drained, then end every run."""
        batch = max(self._encoder.ready.info.batch, 1)
        while True:
            self.turned_s = time.monotonic()
            waiting = self._queue.take(batch, timeout_s=_IDLE_S)
            if not waiting and self._queue.closed:
                break
            while not self._changes.empty():  # after what was taken: a camera is known before its news
                self._changes.get()()
            self.decide(waiting, more=True)
            self._commits.commit(more=self._queue.has_news)
            self._look_after_the_store()
        for camera in list(self._watches):
            self._end(camera, "stopped")
        self._commits.commit()
        self._look_after_the_store(at_once=True)

    def decide(self, waiting: Sequence[Waiting], *, more: bool = False) -> None:
        """Decide on the next piece of news of each of several cameras, and commit it; where `more` follows, soon."""
        for each in waiting:
            if isinstance(each.news, Opened):
                self._open(each.camera, each.news)
        segments = encode(
            self._encoder, waiting, {e: watch.economy for e, watch in self._watches.items() if watch.economy.waits}
        )
        with self._economies.encoder.together(self._needed(segments)):
            for each, segment, dropped in segments:
                self._second(each, segment, dropped)
        for each in waiting:
            if isinstance(each.news, Ended):
                self._end(each.camera, each.news.cause)
                given_up = self._given_up.pop(each.camera, None)
                wanted = each.news.cause in (SWITCHED_OFF, REMOVED)
                self._why[each.camera] = each.news.cause if wanted else given_up or each.news.cause
                if each.news.cause == REMOVED and each.camera in self._cameras:
                    self._leaving.add(each.camera)
                    self._forget(each.camera)
        self._commits.commit(more=more)

    def _needed(self, segments: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """The pictures that several cameras need at once, where no picture that has not changed is left out."""
        watches = [(self._watches.get(each.camera), segment) for each, segment, _ in segments]
        exact = [(watch, each) for watch, each in watches if watch and watch.economy.basis.plan.mode == "exact"]
        if len(exact) < 2:
            return []
        with contextlib.suppress(EncoderLost):  # each finds out again
            needed = [late for watch, each in exact for late in watch.needed(each)]
            return [each.frame for each in needed if each.frame is not None]
        return []

    def _look_after_the_store(self, *, at_once: bool = False) -> None:
        """Now and then: commit what could not be, account for cameras without a run, and hold disk space back again."""
        now_s = time.monotonic()
        if now_s < self._accounted_s + _ACCOUNT_EVERY_S and not at_once:
            return
        self._accounted_s, now_us = now_s, time.time_ns() // 1000
        self._store.hold_ballast()
        if self.trouble != self._reported_trouble:
            self._reported_trouble = self.trouble
            state = f"cannot be written: {self.trouble}" if self.trouble else "is written again"
            _log.log(logging.ERROR if self.trouble else logging.INFO, "the store %s", state)
        for camera in list(self._ending):
            self._committed(camera)
        for camera in sorted(self._leaving):
            self._forget(camera)
        absent = self._cameras.keys() - self._watches.keys() - self._ending.keys()
        if not absent:
            return
        with contextlib.suppress(OutputError), self._store.write() as transaction:  # the next time, then
            for camera in sorted(absent):
                self._account(transaction, camera, now_us)

    def _forget(self, camera: str) -> None:
        """Write that a camera was removed; where the store cannot be written now, later."""
        if not self._committed(camera):
            return
        now_us = time.time_ns() // 1000
        try:
            with self._store.write() as transaction:
                end_left(transaction, camera, ENCODER_FAILED, now_us=now_us, sinks=self._sinks)
                self._account(transaction, camera, now_us)
                remove_camera(transaction, camera, now_us=now_us)
        except OutputError:
            return
        self._leaving.discard(camera)
        self._queue.remove(camera)
        del self._cameras[camera]
        self._why.pop(camera, None)
        self._given_up.pop(camera, None)
        self._removed(camera)

    def _account(self, transaction: Transaction, camera: str, to_us: int) -> None:
        off = (cause := self._why.get(camera, STARTING)) in (SWITCHED_OFF, REMOVED)
        advance(transaction, camera, to_us=to_us, outcome="off" if off else "gap", cause="" if off else cause)

    def _committed(self, camera: str) -> bool:
        """Whether all of the camera's run that ended is in the store by now."""
        if camera in self._ending:
            self._commits.commit()
            commit(self._store, (self._ending[camera],))  # what could not be committed before
            if self._ending[camera].trouble:
                return False
            del self._ending[camera]
        return True

    def _open(self, camera: str, opened: Opened) -> None:
        self._end(camera, "capture died")
        self._children[camera] = opened.child
        run, now_us = new_id(), opened.utc_us
        anchor = Anchor(media_us=0, utc_us=now_us, monotonic_us=opened.monotonic_us, cause="start")
        facts = self._parts.facts(camera, run, now_us)
        if not self._committed(camera):
            self._give_up(camera, STORE_FAILED)
            return
        clock = WallClock(anchor)
        archived = self._archive.begin(self._cameras[camera], clock.utc_us)
        try:
            economy = self._economies.run(self._cameras[camera], archived=archived)
            with self._store.write() as transaction:
                end_left(transaction, camera, ENCODER_FAILED, now_us=now_us, sinks=self._sinks)
                self._account(transaction, camera, now_us)
                keep_vocabulary(transaction, facts.vocabulary_version, self._parts.bundle.vocabulary.names)
                open_run(transaction, facts)
                add_anchor(transaction, run, anchor)
        except (EncoderLost, OutputError) as error:  # the run could not be kept, so nothing is decided in it
            self._give_up(camera, ENCODER_FAILED if isinstance(error, EncoderLost) else STORE_FAILED)
            return
        self._given_up.pop(camera, None)
        if self._keeper:
            self._evidence[camera] = self._keeper.run(self._cameras[camera], opened.child, clock.utc_us)
        self._watches[camera] = CameraWatch(
            self._parts.localizer(self._cameras[camera], economy),
            economy,
            self._parts.tracker(self._cameras[camera]),
            clock,
            camera_id=camera,
            run_id=run,
            sinks=self._sinks,
            evidence=self._evidence.get(camera),
        )
        self._queue.room = ROOM_TO_WAKE if self._economies.wake else ROOM

    def _second(self, waiting: Waiting, segment: Segment, dropped: GapCause | DropCause | None) -> None:
        watch, window = self._watches.get(waiting.camera), waiting.news
        assert isinstance(window, Captured)
        if watch is None:
            return  # its run could not continue; the next one begins with the next child
        moment = Moment(utc_us=window.utc_us, monotonic_us=window.monotonic_us)
        if evidence := self._evidence.get(waiting.camera):
            evidence.window(window)
        try:
            waveform = window.waveform.values if window.waveform else None
            segment = watch.economy.arrived(segment, waveform, window.channel)
            seen = watch.second(segment, moment, dropped=dropped)
        except EncoderLost:
            self._abandon(waiting.camera)
            return
        self._queue.charge(waiting.camera, max(0, watch.economy.worked() - 1))
        self._archive.second(waiting.camera, segment)
        self._commits.hold(watch, partial(self._shown, waiting.camera, window, seen))

    def _end(self, camera: str, cause: str) -> None:
        watch, child = self._watches.get(camera), self._children.pop(camera, None)
        self._evidence.pop(camera, None)
        self._archive.end(camera)
        # Once it is committed: only then are the clips of its last events asked for.
        let_go: Callable[[], None] = (lambda: None) if child is None else partial(self._release, camera, child)
        if watch is None:
            let_go()
            return
        try:
            seen = watch.end(cause, Moment.now())
        except EncoderLost:
            self._abandon(camera)
            let_go()
            return
        self._ending[camera] = self._watches.pop(camera)
        self._commits.hold(watch, partial(self._shown, camera, None, seen))
        self._commits.hold(watch, let_go)

    def _give_up(self, camera: str, cause: str) -> None:
        """Begin again with another capture process; the time without a run is accounted for with this cause."""
        self._given_up[camera] = self._why[camera] = cause
        self._archive.end(camera)
        self._restart(camera)

    def _abandon(self, camera: str) -> None:
        """End a run whose head cannot be asked any more, at its last committed second."""
        self._give_up(camera, ENCODER_FAILED)
        watch = self._watches.pop(camera)
        self._commits.commit()
        commit(self._store, (watch,))
        self._shown(camera, None, watch.seen())
        # A store that cannot be written now leaves the run open; the camera's next run, or the next start, ends it.
        with contextlib.suppress(OutputError), self._store.write() as transaction:
            end_left(transaction, camera, ENCODER_FAILED, now_us=time.time_ns() // 1000, sinks=self._sinks)
