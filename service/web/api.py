"""The API under /api/v1, health and metrics. Errors are problem documents (RFC 9457)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.service.store.accounts import HOUR_US, read_accounts
from ovavel.service.store.database import rows
from ovavel.service.store.events import LogEntry, log_after
from ovavel.service.store.queries import last_seq
from ovavel.service.watch.economy.site import CameraEconomy
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, Streamed, encoded, parameters, still_may
from ovavel.service.web.metrics import Metrics
from ovavel.service.web.news import News, event_message

__all__ = ["API", "Capacity"]

READY_S = 60.0
"""Decisions that are older are no sign of life."""
_HEARTBEAT_S = 15.0
_MOST_BEHIND = 1000
_CLIENTS = 200
_CHECK_S = 10.0
"""After this long a reader whose session is over is let go."""


class Capacity(Struct, frozen=True, kw_only=True):
    """What the encoder manages, and for how many cameras like those of the site that is enough."""

    windows_per_s: float
    """Windows, picture and sound, that it managed a second at the start."""
    demand_per_s: float
    """Windows that the cameras bring a second."""
    cameras: int
    """Cameras of the site."""
    cameras_at_present: int
    """At the present saving of the economy; too many once more of them move and sound."""
    cameras_worst: int
    """If everything moves and sounds, so that every picture is encoded."""


class API:
    """Answers questions about a running service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._metrics = Metrics(service)
        self._news = News(
            wait=service.board.wait,
            newest=lambda: last_seq(service.store.read),
            log_after=self._log_after,
            now=self._now,
        )
        self._readers = 0
        self.stopping = False
        """Set before the server stops: an open stream would keep it from ending."""

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
            Route("/api/v1/cameras", self.cameras),
            Route("/api/v1/capacity", self.capacity),
            Route("/api/v1/cameras/{camera}/seconds", self.seconds),
            Route("/api/v1/cameras/{camera}/snapshot.webp", self.snapshot),
            Route("/api/v1/cameras/{camera}/accounts", self.accounts),
            Route("/api/v1/stream", self.stream),
        ]

    def deleted(self, events: Sequence[str]) -> None:
        """Let those who read the stream know that these events are gone."""
        self._news.deleted(events)

    def healthz(self, request: Request) -> Response:  # noqa: ARG002
        """Whether the process answers."""
        return encoded({"status": "ok"})

    def readyz(self, request: Request) -> Response:  # noqa: ARG002
        """Whether decisions are being made and kept."""
        reasons = self.unready()
        return encoded({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    def unready(self) -> list[str]:
        """Why the service does not do its work; empty where it does."""
        service, now_us = self._service, time.time_ns() // 1000
        reasons = [f"deciding ended: {service.failure}"] if service.failure else []
        reasons += [f"the store cannot be written: {why}"] if (why := service.trouble) else []
        if all(feed.state in ("offline", "ended", "stopped") for feed in service.feeds.values()):
            reasons += [f"{camera} is {feed.state}: {feed.why}" for camera, feed in service.feeds.items()]
        for camera, feed in service.feeds.items():
            final_us = service.board.final_us(camera)
            if feed.state == "watching" and final_us and now_us - final_us > READY_S * 1e6:
                reasons.append(f"no final decision on {camera} for {(now_us - final_us) / 1e6:.0f} s")
        return reasons

    def metrics(self, request: Request) -> Response:  # noqa: ARG002
        """Figures for Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def cameras(self, request: Request) -> Response:
        """Each camera and what it does."""
        parameters(request)
        found = self.economy()
        return encoded([{**each, "economy": found[each["id"]]} for each in self.camera_list() if each["id"] in found])

    def economy(self) -> dict[str, CameraEconomy]:
        """What runs of each camera's economy, and what it saved."""
        return {camera: self._service.economies.report(feed.camera) for camera, feed in self._service.feeds.items()}

    def capacity(self, request: Request) -> Response:
        """For how many cameras the encoder is enough: at the present saving, and if everything moves and sounds."""
        parameters(request)
        service, fits = self._service, self._service.fits
        return encoded(
            Capacity(
                windows_per_s=service.speeds.windows_per_s,
                demand_per_s=service.demand,
                cameras=len(service.site.camera),
                cameras_at_present=fits.at_present,
                cameras_worst=fits.worst,
            )
        )

    def camera_list(self) -> list[dict[str, Any]]:
        """Each camera and what it does."""
        service = self._service
        return [
            {
                "id": camera,
                "name": feed.camera.name or camera,
                "state": feed.state,
                "why": feed.why,
                "last_final_us": service.board.final_us(camera),
                "waiting": service.queue.waiting(camera),
                "lost": _lost(service.monitor.losses.get(camera, {}), service.board.lacking(camera)),
                "notices": service.board.notices(camera),
            }
            for camera, feed in service.feeds.items()
        ]

    def seconds(self, request: Request) -> Response:
        """The last ten seconds of a camera."""
        parameters(request)
        return encoded(self._service.board.seconds(self.known(request.path_params["camera"])))

    def snapshot(self, request: Request) -> Response:
        """The newest picture of a camera."""
        picture = self._service.board.picture(self.known(request.path_params["camera"]))
        if not picture:
            raise Problem(404, "there is no picture yet")
        return Response(picture, media_type="image/webp", headers={"cache-control": "no-store"})

    def accounts(self, request: Request) -> Response:
        """The accounts of a camera, by hour, over the last day."""
        parameters(request)
        camera = self.known(request.path_params["camera"])
        now_us = time.time_ns() // 1000
        return encoded(read_accounts(self._service.store.read, camera, from_us=now_us - 24 * HOUR_US))

    async def stream(self, request: Request) -> Response:
        """Server-sent events: each row of the event log, and what the cameras see and hear."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        if request.method == "HEAD":
            return Response(headers=headers, media_type="text/event-stream")
        last = request.headers.get("last-event-id", "")
        known = re.fullmatch("[0-9]{1,18}", last) is not None
        seq = int(last) if known else last_seq(self._service.store.read)
        if self._readers >= _CLIENTS:
            raise Problem(503, f"{_CLIENTS} others are listening; try again later", {"retry-after": "60"})
        self._readers += 1
        return Streamed(self._listen(request, seq), self._left, media_type="text/event-stream", headers=headers)

    def _left(self) -> None:
        self._readers -= 1

    async def _listen(self, request: Request, seq: int) -> AsyncIterator[bytes]:
        """A reader that is slow is behind in the log, and nothing waits for it in memory."""
        news, version, spoken_s, checked_s = self._news, -1, time.monotonic(), time.monotonic()
        gone = news.gone[-1][0]
        with news.listening():
            while not self.stopping:
                if time.monotonic() - checked_s > _CHECK_S:
                    checked_s = time.monotonic()
                    if not still_may(request):
                        return
                if news.seq - seq > _MOST_BEHIND:
                    seq = news.seq
                    yield f"event: resync\nid: {seq}\ndata: {{}}\n\n".encode()
                while seq < news.seq:
                    messages = news.after(seq)
                    if messages is None:
                        messages = [event_message(each) for each in await asyncio.to_thread(self._log_after, seq)]
                    seq = messages[-1][0] if messages else news.seq
                    for _, message in messages:
                        yield message
                for number, message in news.gone:
                    if number > gone:
                        gone = number
                        yield message
                if news.version != version:
                    version = news.version
                    yield news.now
                    spoken_s = time.monotonic()
                elif time.monotonic() - spoken_s > _HEARTBEAT_S:
                    spoken_s = time.monotonic()
                    yield b": still here\n\n"
                if seq >= news.seq and version == news.version and not await news.turn():
                    return

    def _log_after(self, seq: int) -> list[LogEntry]:
        return log_after(self._service.store.read, seq, limit=100)

    def _now(self) -> list[dict[str, Any]]:
        board = self._service.board
        return [{**camera, "seconds": board.seconds(camera["id"])} for camera in self.camera_list()]

    def known(self, camera: str) -> str:
        """The id of a camera that is or was watched.

        Raises:
            Problem: there never was one of this id.
        """
        service = self._service
        if camera in service.feeds or rows(service.store.read, "SELECT 1 FROM camera WHERE id = ?", (camera,)):
            return camera
        raise Problem(404, f"there is no camera {camera!r}")


def _lost(losses: Mapping[str, int], lacking: Mapping[str, Mapping[str, int]]) -> str:
    """What was lost of a camera of late, with its causes; empty where nothing was."""
    parts = [f"{cause} {seconds} s" for cause, seconds in losses.items()]
    parts += [
        f"no {sense}: {cause} {seconds} s" for sense, causes in lacking.items() for cause, seconds in causes.items()
    ]
    return ", ".join(parts)
