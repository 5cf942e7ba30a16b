"""What remains of events, over HTTP: pictures, spectrograms, clips, and how much space they take."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from ovavel.service.store.assets import FILE_NAMES, Asset, AssetKind, assets_of, find_asset
from ovavel.service.store.events import EventBody
from ovavel.service.store.queries import find_event
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, encoded, parameters

__all__ = ["EvidenceAPI"]

_TYPES: dict[AssetKind, str] = {"snapshot": "image/webp", "sound": "image/webp", "clip": "video/mp4"}
_AGAIN_S = 2
"""When to ask again for what is not finished."""


class EvidenceAPI:
    """Answers questions about what a running service keeps."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [
            Route("/api/v1/events/{event}/assets", self.assets),
            *(
                Route(f"/api/v1/events/{{event}}/{name}", self._of(kind), name=f"event-{kind}")
                for kind, name in FILE_NAMES.items()
            ),
            Route("/api/v1/storage", self.storage),
        ]

    def assets(self, request: Request) -> Response:
        """What there is of an event."""
        return encoded(assets_of(self._service.store.read, self._event(request).id))

    def storage(self, request: Request) -> Response:  # noqa: ARG002
        """What is kept, in how much space, and what is deleted next."""
        return encoded(self._service.keeper.retention.report(now_us=time.time_ns() // 1000))

    def _event(self, request: Request) -> EventBody:
        event = find_event(self._service.store.read, request.path_params["event"])
        if event is None:
            raise Problem(404, "there is no such event")
        return event

    def _of(self, kind: AssetKind) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            """A file of an event, or a part of it (Range)."""
            return self._asset(request, kind)

        return answer

    def _asset(self, request: Request, kind: AssetKind) -> Response:
        """The file of an asset, or a part of it (Range).

        Raises:
            Problem: there is none; says why.
        """
        named = "download" in parameters(request, "download")
        event = self._event(request)
        asset = find_asset(self._service.store.read, event.id, kind)
        if asset is None or asset.state != "ready" or asset.path is None:
            raise _missing(event, asset, kind)
        path = self._service.store.folder / asset.path
        if not path.is_file():
            raise Problem(404, f"the {kind} of this event is not there: its file is missing")
        headers = {"cache-control": "private, no-cache", "etag": f'"{asset.sha256}"'}
        if _has(request, headers["etag"]):
            return Response(status_code=304, headers=headers)
        name = f"{event.camera}-{event.id}.{FILE_NAMES[kind]}" if named else None
        return FileResponse(path, media_type=_TYPES[kind], headers=headers, filename=name)


def _has(request: Request, etag: str) -> bool:
    """Whether the browser has the file already, as it was hashed when it was kept."""
    known = request.headers.get("if-none-match", "")
    return etag in (each.strip().removeprefix("W/") for each in known.split(","))


def _missing(event: EventBody, asset: Asset | None, kind: AssetKind) -> Problem:
    if asset is not None and asset.state == "removed":
        return Problem(410, f"the {kind} of this event was removed: {asset.cause}")
    if asset is not None and asset.state == "failed":
        return Problem(404, f"the {kind} of this event could not be kept: {asset.cause}")
    if asset is None and event.state != "open":
        why = f" ({event.end_cause})" if event.end_cause else ""
        return Problem(404, f"no {kind} was kept of this event{why}")
    return Problem(202, f"the {kind} of this event is not finished yet", {"retry-after": str(_AGAIN_S)})
