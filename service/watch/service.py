"""The service without its page: store, encoder, cameras, and the thread that decides."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.reporting.text import one_line
from ovavel.service.archive.archivist import Archivist, is_archived
from ovavel.service.capture.feed import CameraFeed
from ovavel.service.capture.messages import Captured, Cut, Recording
from ovavel.service.config.read import economy_of
from ovavel.service.config.site import Camera, Site
from ovavel.service.delivery.deliveries import Deliveries
from ovavel.service.delivery.topics import CameraNow
from ovavel.service.encoding.capacity import USABLE, CameraWork, Fits, cameras_that_fit, load, measure_speeds
from ovavel.service.encoding.remote import EncoderLost, RemoteEncoder
from ovavel.service.evidence.files import recover_assets
from ovavel.service.evidence.keeper import Keeper, kinds_of
from ovavel.service.store.cameras import CameraFacts, add_camera, enable_camera, remove_camera, switched_off
from ovavel.service.store.care.recovery import Recovered, recover
from ovavel.service.store.database import Database, rows
from ovavel.service.store.disk.identity import claim
from ovavel.service.store.mutes import snoozed
from ovavel.service.watch.board import Board
from ovavel.service.watch.decider import Decider
from ovavel.service.watch.economy.site import Economies, check_economy
from ovavel.service.watch.incidents import SINK_DISABLED, Monitor
from ovavel.service.watch.measures import Measures
from ovavel.service.watch.queue import FairQueue
from ovavel.service.watch.runs.camera_watch import Seen

__all__ = ["Service", "engine_options", "facts_of", "recording_of"]

_log = logging.getLogger(__name__)

_FEEDS_S, _DECIDE_S, _ARCHIVE_S, _KEEP_S = 3.0, 4.5, 5.0, 6.0
"""Seconds after the request to stop by which the cameras, the decisions, the archive and the evidence end at the
latest: what supervises a service kills it after 10."""
_DRAIN_S = 1.5
"""What is due is still sent for so long when the service ends; the rest stays in the outbox."""


def engine_options(site: Site) -> dict[str, Any]:
    """Keyword arguments of `open_verified` for this site."""
    return {"name": site.backend, "device": site.device, "threads": site.threads, "precision": site.precision}


class Service:
    """A site under watch, from `start` to `stop`."""

    def __init__(self, site: Site, *, file: Path | None = None) -> None:
        """Open the bundle, the encoder and the store, and end what an earlier service left open.

        `file` is where `site` was read from, if anywhere.

        Raises:
            OvavelError: one of them cannot be opened; what was opened is closed again.
        """
        self.site, self.file = site, file
        self.bundle = Bundle.open(Path(site.bundle))
        with ExitStack() as opened:
            self.identity = claim(Path(site.data))
            """Of the store's folder, so that no other disk is taken for it."""
            self.store = opened.enter_context(Database.open(Path(site.data)))
            self.deliveries = Deliveries(
                site,
                self.store,
                labels=self.bundle.vocabulary.names[:-1],
                cameras=self.cameras_now,
                enable=self.enable,
                gone=self._sink_gone,
            )
            self.recovered: Recovered = self._recover()
            """What an earlier service had left open."""
            recover_assets(self.store)
            self.keeper = Keeper(self.store, site, self._cut, self.identity.check)
            self.encoder = opened.enter_context(closing(RemoteEncoder(Path(site.bundle), engine_options(site))))
            self.archivist = Archivist(
                self.store, self.bundle, self.encoder, site, self.keeper.retention, self.identity.check
            )
            self.measures = Measures()
            self.store.committed = self.measures.commit_s.observe
            self.encoder.encoded = self.measures.batch.observe
            self.board = Board()
            self.store.grown = self._grown
            check_economy(site, self.bundle)
            self.economies = Economies(site, self.bundle, self.encoder)
            try:
                self.speeds = measure_speeds(self.encoder, self.bundle.manifest.encoders)
                """What the encoder managed at the start."""
                for camera in site.camera:
                    self.economies.plan(camera, archived=is_archived(site, camera))
            except EncoderLost as error:
                raise DeviceError(f"the encoder was lost when its speed was measured: {error}") from error
            self.check_capacity(site)
            self.queue = FairQueue({camera.id: camera.every_s for camera in site.camera})
            off = switched_off(self.store.read)
            self.feeds = {camera.id: self.feed(site, camera, enabled=camera.id not in off) for camera in site.camera}
            """In the order of the site file. Replaced where that changes, so that it may be read from any thread."""
            self.leaving: dict[str, CameraFeed] = {}
            """Of cameras that were removed, at least until nothing of them is left to be done."""
            self.left: queue.SimpleQueue[str] = queue.SimpleQueue()
            """Cameras that were removed, when nothing of them is left to be done."""
            self.monitor = Monitor(self.store, site, self.feeds)
            self.decider = Decider(
                self.store,
                self.bundle,
                self.encoder,
                self.queue,
                site.camera,
                sinks=site.sink,
                shown=self._show,
                restart=self._restart,
                keeper=self.keeper,
                archive=self.archivist,
                economies=self.economies,
                release=self._release,
                removed=self._removed,
            )
            self._opened = opened.pop_all()
        self.rejected = ""
        """Why the site file as it was read last is not in force; empty where it is."""
        self.failure: Exception | None = None
        """What ended the deciding thread, if anything did."""
        self._thread = threading.Thread(target=self._decide, name="ovavel-decide", daemon=True)

    @property
    def demand(self) -> float:
        """Windows a second that the cameras bring to the encoder."""
        return _demand(self.site)

    def start(self) -> None:
        """Start deciding and delivering, then the cameras."""
        self.keeper.start()
        self.archivist.start()
        self._thread.start()
        self.deliveries.start()
        self.monitor.start("the one before it died" if self.recovered.runs else "")
        for feed in self.feeds.values():
            feed.start()

    def stop(self) -> None:
        """End the cameras, decide on what waits, end and deliver events, and close the store. May be called twice."""
        began_s = time.monotonic()
        self.monitor.stop()
        feeds = (*self.feeds.values(), *self.leaving.values())
        for feed in feeds:
            feed.stop()
        for feed in feeds:
            feed.join(_left_s(began_s, _FEEDS_S))
        self.queue.close()
        if self._thread.is_alive():
            self._thread.join(_left_s(began_s, _DECIDE_S))
            if self._thread.is_alive():
                self.encoder.close()  # it hangs; what it was asked for is dropped
                self._thread.join(1.0)
        self.archivist.close(_left_s(began_s, _ARCHIVE_S))
        self.keeper.close(_left_s(began_s, _KEEP_S))
        self.deliveries.stop(_DRAIN_S)
        self._opened.close()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def trouble(self) -> str:
        """Why the store could not be written last time; empty where it could."""
        return self.decider.trouble or self.keeper.trouble

    @property
    def idle_s(self) -> float:
        """How long the deciding thread has not taken what waits: a second or two, unless it hangs."""
        return time.monotonic() - self.decider.turned_s

    @property
    def fits(self) -> Fits:
        """For how many cameras like those of the site the encoder is enough, decoding and deciding beside it."""
        return cameras_that_fit(self.speeds, self.economies.work(self.site.camera))

    def check_capacity(self, site: Site) -> None:
        """Log what the encoder manages of what the cameras of `site` bring, if all their pictures are encoded.

        Raises:
            DeviceError: it is too slow, and the site refuses that.
        """
        worst = [
            CameraWork(mode=each.mode, every_s=each.every_s, looked=1.0) for each in self.economies.work(site.camera)
        ]
        share, demand = load(self.speeds, worst), _demand(site)
        found = f"the encoder manages {demand / share:.3g} windows a second, and the cameras bring {demand:.3g}"
        if share <= USABLE:
            _log.info(found)
            return
        advice = "look less often (every_s), watch fewer cameras, or choose a faster precision or device"
        if site.capacity == "refuse":
            raise DeviceError(f"{found}: {advice}")
        _log.warning("%s; the rest will be dropped and counted: %s", found, advice)

    def feed(self, site: Site, camera: Camera, *, enabled: bool) -> CameraFeed:
        """A feed of a camera as `site` has it, which is to be started."""
        made = CameraFeed(
            camera,
            self.bundle.manifest.encoders,
            self.queue.put,
            recording=recording_of(site, camera),
            waveform=economy_of(site, camera).mode == "auto",
            clipped=self.keeper.clipped,
            gone=self.keeper.gone,
        )
        made.enabled = enabled
        return made

    def enable(self, camera: str, on: bool) -> None:
        """Switch a camera on or off, also for later starts.

        Raises:
            LookupError: there is no such camera.
            OutputError: the store cannot be written; nothing is changed.
        """
        feed = self.feeds[camera]
        with self.store.write() as transaction:
            enable_camera(transaction, camera, on)
        feed.enable(on)

    def cameras_now(self) -> list[CameraNow]:
        """How each camera is at this moment."""
        snoozes = snoozed(self.store.read, now_us=time.time_ns() // 1000)
        return [
            CameraNow(
                id=camera,
                state=feed.state,
                why=one_line(redacted(feed.why)),
                enabled=feed.enabled,
                snoozed_until_us=snoozes.get((camera, None)),
                losses=self.monitor.losses.get(camera, {}),
                lacking=self.board.lacking(camera),
            )
            for camera, feed in self.feeds.items()
        ]

    def _sink_gone(self, sink: str, why: str) -> None:
        self.monitor.moment(SINK_DISABLED, f"{sink}: {why}")

    def _decide(self) -> None:
        try:
            self.decider.run()
        except Exception as error:  # noqa: BLE001 - whatever it is must be seen by who asks whether the service lives
            self.failure = error

    def _show(self, camera: str, window: Captured | None, seen: Seen) -> None:
        if window:
            self.measures.latency_s.labels(camera).observe(max(0.0, time.monotonic() - window.monotonic_us / 1e6))
        for notice in seen.notices:
            _log.info("%s", notice, extra={"camera": camera})
        self.board.show(camera, window, seen)

    def _grown(self) -> None:
        self.board.wake()
        self.deliveries.wake()

    def _restart(self, camera: str) -> None:
        self._any_feed(camera).restart()

    def _cut(self, camera: str, cut: Cut) -> bool:
        return self._any_feed(camera).cut(cut)

    def _release(self, camera: str, child: int) -> None:
        self._any_feed(camera).release(child)

    def _removed(self, camera: str) -> None:
        self.board.forget(camera)
        self.economies.forget(camera)
        self.left.put(camera)

    def _any_feed(self, camera: str) -> CameraFeed:
        return self.feeds.get(camera) or self.leaving[camera]

    def _recover(self) -> Recovered:
        now_us = time.time_ns() // 1000
        with self.store.write() as transaction:
            recovered = recover(transaction, now_us=now_us, sinks=self.site.sink)
            known = {camera.id for camera in self.site.camera}
            for (camera_id,) in rows(transaction, "SELECT id FROM camera WHERE removed_us IS NULL"):
                if camera_id not in known:
                    remove_camera(transaction, camera_id, now_us=now_us)
            for camera in self.site.camera:
                add_camera(transaction, facts_of(self.site, camera), now_us=now_us)
        return recovered


def _left_s(began_s: float, limit_s: float) -> float:
    return max(0.0, began_s + limit_s - time.monotonic())


def _demand(site: Site) -> float:
    return sum(1 / camera.every_s for camera in site.camera)


def recording_of(site: Site, camera: Camera) -> Recording | None:
    """What is kept of a camera for clips; None: nothing."""
    if "clip" not in kinds_of(site, camera):
        return None
    return Recording(
        ring_bytes=site.clip.ring_mb * 1_000_000,
        ring_s=site.clip.ring_s,
        encode=camera.transcode,
        sound=camera.sound and camera.keep_sound,
    )


def facts_of(site: Site, camera: Camera) -> CameraFacts:
    """A camera for the store."""
    return CameraFacts(
        id=camera.id,
        name=camera.name or camera.id,
        tz=camera.tz or site.tz,
        source_redacted=redacted(camera.source),
        config_sha=hashlib.sha256(msgspec.json.encode(camera, order="sorted")).hexdigest(),
    )
