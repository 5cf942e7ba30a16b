"""The archive in the API: a search answers with server-sent events, newest day first, then the ranking of all."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.runtime.archive.search.hits import Hit
from ovavel.runtime.archive.search.ranking import Evidence
from ovavel.runtime.bundle.precision import is_pooled
from ovavel.service.archive.messages import Answered, Looking
from ovavel.service.store.database import rows
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, asking, read_json
from ovavel.service.web.search.questions import Questions

__all__ = ["Asked", "Found", "FoundHit", "SearchAPI"]

_US = 1_000_000
_Phrase = Annotated[str, Meta(min_length=1, max_length=1000)]


class Asked(Struct, kw_only=True, forbid_unknown_fields=True):
    """What to look for in the archive."""

    phrases: Annotated[tuple[_Phrase, ...], Meta(min_length=1, max_length=16)]
    """Each is ranked by itself; they need not be names."""
    without: Annotated[tuple[_Phrase, ...], Meta(max_length=16)] = ()
    """Phrases that must fit less."""
    evidence: Evidence = "both"
    cameras: Annotated[tuple[str, ...], Meta(max_length=1024)] = ()
    """All of them if empty."""
    from_us: int | None = None
    """Microseconds of UTC."""
    to_us: int | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    """Hits for each phrase, at most."""


class FoundHit(Struct, kw_only=True):
    """Where a phrase fits."""

    phrase: str
    camera: str
    start_us: int
    end_us: int
    peak_us: int
    score: float
    seen: float | None
    heard: float | None
    event: bool
    """Whether live watching with this phrase among the names would have reported an event of it."""
    label: str
    """What its best second would have been called then."""
    margin: float
    probability: float | None
    event_id: str | None
    """An event of the store at that time, whatever its name: it may have a picture and a clip."""


class Found(Struct, kw_only=True):
    """What is known once another day was searched; the last answer has the ranking of all days."""

    done: int
    days: int
    seconds: int
    last: bool
    note: str
    hits: list[FoundHit]


class SearchAPI:
    """Routes of /api/v1/search."""

    def __init__(self, service: Service, questions: Questions) -> None:
        """`questions`: to the archive, by everybody."""
        self._service, self._questions = service, questions

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [Route("/api/v1/search", self.search, methods=["POST"])]

    async def search(self, request: Request) -> Response:
        """Search the archive: "found" for each day of a camera, then "end", or "problem". Hang up to cancel."""
        asking(request)
        asked = await read_json(request, Asked)
        looking = self._looking(asked)
        return await self._questions.answered(looking, self._found)

    def _looking(self, asked: Asked) -> Looking:
        service = self._service
        known = {camera for (camera,) in rows(service.store.read, "SELECT id FROM camera")}
        if unknown := [camera for camera in asked.cameras if camera not in known]:
            raise Problem(404, f"there is no camera {unknown[0]!r}")
        for name, value in (("from_us", asked.from_us), ("to_us", asked.to_us)):
            if value is not None and not 0 <= value < 2**62:
                raise Problem(422, f"{name} must be microseconds of UTC, not {value}")
        if asked.from_us is not None and asked.to_us is not None and asked.from_us >= asked.to_us:
            raise Problem(422, "from_us is not before to_us")
        return Looking(
            archive=self._questions.folder,
            bundle=str(service.bundle.path),
            phrases=asked.phrases,
            without=asked.without,
            evidence=asked.evidence,
            cameras=asked.cameras,
            from_s=None if asked.from_us is None else asked.from_us // _US,
            to_s=None if asked.to_us is None else -(-asked.to_us // _US),
            limit=asked.limit,
            pooled=is_pooled(service.encoder.ready.info.precision),
        )

    def _found(self, answer: Answered) -> Found:
        return Found(
            done=answer.done,
            days=answer.days,
            seconds=answer.seconds,
            last=answer.last,
            note=answer.note,
            hits=[self._hit(hit) for hit in answer.hits],
        )

    def _hit(self, hit: Hit) -> FoundHit:
        start_us, end_us, peak_us = (round(each * _US) for each in (hit.start_s, hit.end_s, hit.peak_s))
        events = rows(
            self._service.store.read,
            "SELECT id FROM event WHERE camera_id = ? AND state <> 'retracted' AND start_us < ? AND end_us > ? "
            "ORDER BY (label = ?) DESC, min(end_us, ?) - max(start_us, ?) DESC LIMIT 1",
            (hit.camera, end_us, start_us, hit.phrase, end_us, start_us),
        )
        return FoundHit(
            phrase=hit.phrase,
            camera=hit.camera,
            start_us=start_us,
            end_us=end_us,
            peak_us=peak_us,
            score=hit.score,
            seen=hit.seen,
            heard=hit.heard,
            event=hit.event,
            label=hit.label,
            margin=hit.margin,
            probability=hit.probability,
            event_id=events[0][0] if events else None,
        )
