"""One camera as the service keeps it: a capture child, started again when it ends, with what came from it in order."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

import msgspec

from ovavel.runtime.bundle.graphs import Encoders
from ovavel.runtime.types import GapCause
from ovavel.service.capture.messages import (
    Begin,
    Captured,
    Clip,
    Cut,
    Finished,
    FromChild,
    Leave,
    Opened,
    Recording,
    Stop,
)
from ovavel.service.config.site import Camera
from ovavel.service.link import Child, LinkClosed

__all__ = [
    "END_OF_MEDIA",
    "OFFLINE",
    "RECONFIGURED",
    "REMOVED",
    "SWITCHED_OFF",
    "CameraFeed",
    "CameraState",
    "Delivery",
    "Ended",
]

OFFLINE, END_OF_MEDIA, SWITCHED_OFF = "camera offline", "end of media", "switched off"
"""Causes of an end: a source that cannot be opened or read, a file that was played to its end, a person's will."""
RECONFIGURED, REMOVED = "configuration changed", "camera removed"
"""Causes of an end: the site file says something else of the camera, or nothing any more."""
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 60.0
HEALTHY_S = 30.0
"""A child that lived for this long was well: the next delay is the first one again."""
SILENT_S = 20.0
"""A child that sends no window for this long hangs: a source sends one a second even while it is lost."""
OPEN_S = 90.0
"""How long a source may take to open."""
LINGER_S = 8.0
"""How long a child whose source has ended stays for the clips of its last events."""


_LOST = frozenset({GapCause.STREAM_LOST, GapCause.CAMERA_LOST, GapCause.MICROPHONE_LOST})
"""Causes of a gap that lasts until the capture process has opened again what it watches."""

_log = logging.getLogger(__name__)


class CameraState(StrEnum):
    """What a camera does now."""

    STARTING = "starting"
    WATCHING = "watching"
    OFFLINE = "offline"
    OFF = "off"
    """A person has switched it off."""
    ENDED = "ended"
    """Its file was played to the end."""
    STOPPED = "stopped"


class Ended:
    """The child ended; `cause` says why, in a few words for counters, and `detail` for people."""

    def __init__(self, cause: str, detail: str) -> None:
        self.cause, self.detail = cause, detail


Delivery: TypeAlias = Opened | Captured | Ended
"""In this order: `Opened`, any number of `Captured`, `Ended`; or `Ended` alone where it could not be opened."""


class CameraFeed:
    """Keeps a capture child running for one camera and hands on what it sends, from a thread of its own."""

    def __init__(
        self,
        camera: Camera,
        encoders: Encoders,
        deliver: Callable[[str, Delivery], None],
        *,
        recording: Recording | None = None,
        waveform: bool = False,
        clipped: Callable[[str, Clip], None] = lambda *_: None,
        gone: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        """Watch `camera` once started.

        Args:
            camera: what to watch.
            encoders: how its windows are prepared.
            deliver: called with its id and what it brings, in order; must not block for long.
            recording: what is kept for clips; None: nothing.
            waveform: whether windows carry their sound as it was heard.
            clipped: called with its id and each answer to a `cut`.
            gone: called with its id and the number of a child that has ended: no answer comes from it any more.
        """
        self.camera = camera
        self.state = CameraState.STARTING
        self.why = ""
        """Why it is offline, or what of it is lost."""
        self.lost = ""
        """What of it is lost now, although its capture process lives: "microphone lost"; empty where nothing is."""
        self.restarts = 0
        """How often a child ended."""
        self._encoders = encoders
        self._begin = self._begin_of(camera, recording, waveform=waveform)
        self._deliver, self._clipped, self._gone = deliver, clipped, gone
        self.enabled = True
        """Whether it is to be watched."""
        self._removed = False
        self._stop, self._woken = threading.Event(), threading.Event()
        self._child: Child | None = None
        self._thread = threading.Thread(target=self._run, name=f"ovavel-camera-{camera.id}", daemon=True)

    def _begin_of(self, camera: Camera, recording: Recording | None, *, waveform: bool) -> Begin:
        return Begin(
            source=camera.source,
            microphone=camera.microphone,
            loop=camera.loop,
            encoders=self._encoders,
            sound=camera.sound,
            spectrum=camera.media and camera.sound and camera.keep_sound,
            waveform=waveform,
            masks=camera.mask,
            recording=recording,
        )

    @property
    def pid(self) -> int | None:
        """Process of the present child."""
        return self._child.process.pid if self._child else None

    def start(self) -> None:
        """Start the first child."""
        self._thread.start()

    def change(self, camera: Camera, recording: Recording | None, *, waveform: bool = False) -> None:
        """Watch it as `camera` says from now on: the present child ends, and another one follows at once."""
        self.camera, self._begin = camera, self._begin_of(camera, recording, waveform=waveform)
        self._woken.set()
        if not self._ask(Stop()):
            self.restart()

    def stop(self, *, removed: bool = False) -> None:
        """Ask the child to end; `join` waits for it. May be called twice.

        A camera that is `removed` from the site always ends with that cause, whatever it did before.
        """
        self._removed = self._removed or removed
        self._stop.set()
        self._woken.set()
        if not self._ask(Stop()):
            self.restart()

    def cut(self, cut: Cut) -> bool:
        """Ask the present child for a clip; whether it could be asked."""
        return self._ask(cut)

    def release(self, child: int) -> None:
        """Say that no more clips will be asked for of the child with this number, whose source has ended."""
        self._ask(Leave(child=child))

    def _ask(self, message: Cut | Stop | Leave) -> bool:
        child = self._child
        if child is None or self.state is CameraState.STARTING:
            return False  # it does not listen before its source is open
        try:
            child.link.send(message)
        except LinkClosed:
            return False
        return True

    def enable(self, on: bool) -> None:
        """Switch the camera on or off. It may be called before `start`."""
        self.enabled = on
        self._woken.set()
        if not on:
            self.restart()

    def restart(self) -> None:
        """End the present child; another one follows unless `stop` was called."""
        if child := self._child:
            child.link.close()

    def join(self, timeout_s: float) -> bool:
        """Wait until the last delivery was made, and end the child where it does not end by itself; whether it did."""
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                self.restart()
                self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stop.is_set():
            self._woken.clear()
            if not self.enabled:
                self._switch_off()
                continue
            self.state, began_s, begin = CameraState.STARTING, time.monotonic(), self._begin
            ended = self._watch(begin)
            self.why = ended.detail
            level = logging.INFO if self._is_over(begin) or ended.cause == END_OF_MEDIA else logging.WARNING
            _log.log(level, "%s: %s", ended.cause, ended.detail, extra={"camera": self.camera.id, "cause": ended.cause})
            if ended.cause == END_OF_MEDIA:
                self.state = CameraState.ENDED
                while not (self._stop.is_set() or self._begin is not begin):
                    self._woken.wait()
                    self._woken.clear()
            if self._begin is not begin:
                delay_s = FIRST_DELAY_S
                continue
            if self._stop.is_set():
                break
            self.state = CameraState.OFFLINE
            if time.monotonic() - began_s > HEALTHY_S:
                delay_s = FIRST_DELAY_S
            # A little apart, so that cameras behind one switch do not all come back in the same moment.
            self._woken.wait(delay_s * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            delay_s = min(2 * delay_s, MAX_DELAY_S)
        if self.state is not CameraState.ENDED:
            self.state = CameraState.STOPPED
        if self._removed:
            self._deliver(self.camera.id, self._finished(None, self._begin))

    def _switch_off(self) -> None:
        self.state, self.why = CameraState.OFF, ""
        self._deliver(self.camera.id, Ended(SWITCHED_OFF, "it was switched off"))
        while not (self.enabled or self._stop.is_set()):
            self._woken.wait()
            self._woken.clear()

    def _watch(self, begin: Begin) -> Ended:
        """Run one child to its end, and deliver that."""
        try:
            self._child = child = Child("ovavel.service.capture.child")
        except LinkClosed as error:
            lost = Ended("capture died", str(error))
            self._deliver(self.camera.id, lost)
            return lost
        if self._is_over(begin):  # since before there was a child that could be asked to end
            child.link.close()
        limit_s, ended = OPEN_S, None
        try:
            child.link.send(msgspec.structs.replace(begin, child=self.restarts))
            while True:
                message: Opened | Captured | Clip | Finished = child.link.receive(FromChild, timeout_s=limit_s)
                if isinstance(message, Clip):
                    self._clipped(self.camera.id, message)
                    continue
                if isinstance(message, Finished):
                    ended, limit_s = self._finished(message.error, begin), LINGER_S
                    self._deliver(self.camera.id, ended)
                    continue
                if isinstance(message, Captured):
                    self._note(message)
                if isinstance(message, Opened):
                    self.state, self.why, limit_s = CameraState.WATCHING, "", SILENT_S
                    _log.info("watching", extra={"camera": self.camera.id})
                    if self._is_over(begin):
                        self._ask(Stop())
                self._deliver(self.camera.id, message)
        except LinkClosed as error:
            detail = str(error)
        finally:
            code = child.stop()
            self._child, self.lost = None, ""
            self._gone(self.camera.id, self.restarts)
            self.restarts += 1
        if ended is None:
            ended = Ended("capture died", f"its process ended ({detail}; exit code {code})")
            if self._is_over(begin):
                ended = self._finished(None, begin)
            self._deliver(self.camera.id, ended)
        return ended

    def _note(self, window: Captured) -> None:
        """A camera without its pictures is offline, and one without its sound is still watched."""
        for notice in window.notices:
            _log.info(notice.message, extra={"camera": self.camera.id})
        missing = {sense for sense, data in (("vision", window.frame), ("audio", window.sound)) if data is None}
        lost = {gap.sense: gap.cause for gap in window.gaps if gap.sense in missing and gap.cause in _LOST}
        self.lost = self.why = ", ".join(sorted(set(lost.values())))
        self.state = CameraState.OFFLINE if "vision" in lost else CameraState.WATCHING

    def _is_over(self, begin: Begin) -> bool:
        """Whether a child that watches as `begin` says is wanted no more."""
        return self._stop.is_set() or not self.enabled or self._begin is not begin

    def _finished(self, error: str | None, begin: Begin) -> Ended:
        if self._stop.is_set():
            return (
                Ended(REMOVED, "it is not in the site file any more")
                if self._removed
                else Ended("stopped", "the service stopped it")
            )
        if not self.enabled:
            return Ended(SWITCHED_OFF, "it was switched off")
        if self._begin is not begin:
            return Ended(RECONFIGURED, "the site file says something else of it")
        return Ended(OFFLINE if error else END_OF_MEDIA, error or "its file was played to the end")
