"""The pages of events: the list with its day, and one event with why it is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.service.store.database import rows
from ovavel.service.store.events import EventBody, log_of
from ovavel.service.store.queries import Bar, asset_states, count_events, find_event, list_bars, list_events
from ovavel.service.store.seconds import read_seconds
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, parameters
from ovavel.service.web.events.api import FILTERS, VERDICTS, filter_of
from ovavel.service.web.templates import Templates

__all__ = ["EventsPages"]

_ON_A_PAGE = 50
_BARS = 2000
_TOGETHER_US = 60_000_000
"""Events of one label that are this close together are one group, whichever cameras they are of."""
_SHORTEST_BAR_S = 240
"""A shorter event would not be seen on the line of a day."""
_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """An event as the page shows it."""

    event: EventBody
    camera: str
    iso: str
    begin: str
    day: str
    length_s: str
    margin: str
    assets: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Events of one label, close together; newest first."""

    label: str
    events: tuple[_Shown, ...]

    @property
    def cameras(self) -> str:
        """Names of the cameras, each once."""
        return ", ".join(dict.fromkeys(each.camera for each in self.events))


class EventsPages:
    """Shows events."""

    def __init__(self, service: Service, templates: Templates) -> None:
        self._service, self._templates = service, templates

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [Route("/events", self.events), Route("/events/{event}", self.event)]

    def events(self, request: Request) -> Response:
        """The list, newest first, and the line of a day."""
        given = parameters(request, *FILTERS, "day", "cursor")
        where = filter_of(given, self._service)
        zone = self._zone(where.camera)
        day = _day(given)
        read = self._service.store.read
        chosen = {name: given[name] for name in (*FILTERS, "day") if given.get(name)}
        shown_day = day or datetime.now(zone).date()
        begin_us, end_us = _bounds(shown_day, zone)
        on_day = replace(where, from_us=begin_us, to_us=end_us)
        within = on_day if day else where
        try:
            page = list_events(read, within, cursor=given.get("cursor"), limit=_ON_A_PAGE)
        except ValueError as error:
            raise Problem(400, "this page's address is damaged; go back to the first one") from error
        without_day = {name: value for name, value in chosen.items() if name != "day"}
        return self._templates.answer(
            request,
            "events.html",
            title="Events",
            cameras=self._names(),
            labels=self._labels(),
            verdicts=VERDICTS,
            chosen=chosen,
            groups=_grouped(self._shown(page.events)),
            count=count_events(read, within),
            older=urlencode({**chosen, "cursor": page.cursor}) if page.cursor else "",
            export=urlencode({**without_day, **({"from": begin_us, "to": end_us} if day else {})}),
            day=shown_day.isoformat(),
            before=urlencode({**without_day, "day": (shown_day - timedelta(days=1)).isoformat()}),
            after=urlencode({**without_day, "day": (shown_day + timedelta(days=1)).isoformat()}),
            lanes=self._lanes(
                list_bars(read, replace(where, from_us=begin_us, to_us=end_us), limit=_BARS), begin_us, end_us
            ),
            span_s=(end_us - begin_us) // _US,
            zone=str(zone),
        )

    def event(self, request: Request) -> Response:
        """One event, its pictures, and why it is one."""
        parameters(request)
        read = self._service.store.read
        event = find_event(read, request.path_params["event"])
        if event is None:
            raise Problem(404, "there is no such event")
        (shown,) = self._shown((event,))
        zone = self._zone(event.camera)
        return self._templates.answer(
            request,
            "event.html",
            title="Event",
            shown=shown,
            event=event,
            zone=str(zone),
            log=[each for each in log_of(read, event.id) if each.kind != "update"],
            seconds=[
                {
                    "time": datetime.fromtimestamp(each.start_us / _US, zone).strftime("%H:%M:%S"),
                    "inside": event.start_us <= each.start_us < event.end_us,
                    "percent": round(100 * each.margin),
                    "why": each,
                }
                for each in read_seconds(read, event.id)
            ],
        )

    def _shown(self, events: Sequence[EventBody]) -> list[_Shown]:
        names, states = self._names(), asset_states(self._service.store.read, [each.id for each in events])
        found = []
        for event in events:
            begin = datetime.fromtimestamp(event.start_us / _US, self._zone(event.camera))
            found.append(
                _Shown(
                    event=event,
                    camera=names.get(event.camera, event.camera),
                    iso=begin.astimezone(UTC).isoformat(),
                    begin=begin.strftime("%H:%M:%S"),
                    day=begin.strftime("%a %d %b %Y, %Z"),
                    length_s=f"{(event.end_us - event.start_us) / _US:.0f}",
                    margin=f"{event.peak_margin:.2f}",
                    assets=states.get(event.id, {}),
                )
            )
        return found

    def _lanes(self, bars: Sequence[Bar], begin_us: int, end_us: int) -> list[dict[str, object]]:
        """For each camera with events in the day, where they lie, in seconds from its start."""
        names = self._names()
        lanes: dict[str, list[dict[str, object]]] = {}
        for bar in bars:
            start_s = max(0.0, (bar.start_us - begin_us) / _US)
            length_s = max(_SHORTEST_BAR_S, (min(bar.end_us, end_us) - bar.start_us) / _US)
            lanes.setdefault(bar.camera, []).append({"bar": bar, "x": round(start_s), "width": round(length_s)})
        return [{"camera": names.get(camera, camera), "bars": found} for camera, found in lanes.items()]

    def _names(self) -> dict[str, str]:
        """Camera → what people call it, for all that ever were."""
        return dict(rows(self._service.store.read, "SELECT id, name FROM camera ORDER BY name"))

    def _labels(self) -> list[str]:
        """The names that are searched for, and those of older vocabularies that had events."""
        known = self._service.bundle.vocabulary.names[:-1]
        older = [label for (label,) in rows(self._service.store.read, "SELECT DISTINCT label FROM event")]
        return sorted({*known, *older})

    def _zone(self, camera: str | None) -> ZoneInfo:
        found = rows(self._service.store.read, "SELECT tz FROM camera WHERE id = ?", (camera,)) if camera else []
        return ZoneInfo(found[0][0] if found else self._service.site.tz)


def _grouped(events: Sequence[_Shown]) -> list[_Group]:
    """Neighbours of one label that are close together, in one group each."""
    groups: list[list[_Shown]] = []
    for each in events:
        newest = groups[-1][-1].event if groups else None
        if newest and newest.label == each.event.label and newest.start_us - each.event.end_us <= _TOGETHER_US:
            groups[-1].append(each)
        else:
            groups.append([each])
    return [_Group(label=group[0].event.label, events=tuple(group)) for group in groups]


def _day(given: QueryParams) -> date | None:
    text = given.get("day")
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
        if not 1970 < day.year < 9999:  # what the clocks and the links to the neighbours can say
            raise ValueError(text)
    except ValueError as error:
        raise Problem(400, f"day must be a date such as 2026-11-29, not {text!r}") from error
    return day


def _bounds(day: date, zone: ZoneInfo) -> tuple[int, int]:
    """Begin and end of a day: 23, 24 or 25 hours."""
    begin, end = (datetime.combine(each, clock(), zone) for each in (day, day + timedelta(days=1)))
    return round(begin.timestamp() * _US), round(end.timestamp() * _US)
