"""The pages: HTML made here, kept up to date by the stream of news."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ovavel.service.store.accounts import HOUR_US, Account, read_accounts
from ovavel.service.store.events import EventBody
from ovavel.service.store.queries import EventFilter, list_events
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem
from ovavel.service.web.api import API
from ovavel.service.web.templates import Templates

__all__ = ["Pages"]

_HALF_SECOND_US = 500_000


class Pages:
    """Now, Events and Health."""

    def __init__(self, service: Service, api: API, templates: Templates) -> None:
        self._service, self._api, self._templates = service, api, templates

    @property
    def routes(self) -> list[BaseRoute]:
        """All of it."""
        return [
            Route("/", self.now),
            Route("/events", self.events),
            Route("/health", self.health),
        ]

    def now(self, request: Request) -> Response:
        """What each camera sees and hears."""
        return self._page(request, "Now", cameras=self._api.camera_list())

    def events(self, request: Request) -> Response:
        """Events, newest first."""
        chosen = {name: request.query_params.get(name) or None for name in ("camera", "label")}
        try:
            page = list_events(
                self._service.store.read,
                EventFilter(camera=chosen["camera"], label=chosen["label"]),
                cursor=request.query_params.get("cursor"),
            )
        except ValueError:
            raise Problem(400, "this page's address is damaged; go back to the first one") from None
        older = {name: value for name, value in {**chosen, "cursor": page.cursor}.items() if value}
        return self._page(
            request,
            "Events",
            cameras=self._api.camera_list(),
            labels=self._service.bundle.vocabulary.names[:-1],
            chosen=chosen,
            events=[self._event(each) for each in page.events],
            cursor=urlencode(older) if page.cursor else "",
            zones=json.dumps({each.id: each.tz or self._service.site.tz for each in self._service.site.camera}),
        )

    def health(self, request: Request) -> Response:
        """Whether it does its work, and what became of every second."""
        encoder, now_us = self._service.encoder, time.time_ns() // 1000
        info = encoder.ready.info
        found = [
            account
            for camera in self._service.feeds
            for account in read_accounts(self._service.store.read, camera, from_us=now_us - 24 * HOUR_US, to_us=now_us)
        ]
        return self._page(
            request,
            "Health",
            reasons=self._api.unready(),
            cameras=self._api.camera_list(),
            accounts=[_account(each) for each in sorted(found, key=lambda each: (each.camera_id, -each.hour_us))],
            engine=f"{info.engine} on {info.device}, {', '.join(f'{g} {p}' for g, p in info.precision.items())}",
            gate=encoder.ready.gate,
            restarts=encoder.restarts,
            capacity=f"{self._service.capacity:.3g}",
            demand=f"{self._service.demand:.3g}",
        )

    def _page(self, request: Request, title: str, **content: Any) -> Response:
        return self._templates.answer(request, f"{title.lower()}.html", title=title, **content)

    def _event(self, event: EventBody) -> dict[str, str]:
        camera = next((each for each in self._service.site.camera if each.id == event.camera), None)
        zone = ZoneInfo((camera.tz if camera else "") or self._service.site.tz)
        begin = datetime.fromtimestamp(event.start_us / 1e6, UTC)
        return {
            "id": event.id,
            "iso": begin.isoformat(),
            "shown": begin.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z"),
            "seconds": f"{(event.end_us - event.start_us) / 1e6:.0f}",
            "camera": event.camera,
            "label": event.label,
            "margin": f"{event.peak_margin:.2f}",
            "state": event.state,
            "end_cause": event.end_cause or "",
        }


def _account(account: Account) -> dict[str, str]:
    causes = [f"{cause} {count}" for cause, count in account.dropped.items()]
    causes += [f"{cause} {us / 1e6:.0f} s" for cause, us in account.gap_us.items() if us >= _HALF_SECOND_US]
    return {
        "camera": account.camera_id,
        "hour": datetime.fromtimestamp(account.hour_us / 1e6, UTC).strftime("%Y-%m-%d %H:00"),
        "final": str(account.final),
        "dropped": str(sum(account.dropped.values())),
        "gap": f"{sum(account.gap_us.values()) / 1e6:.0f}",
        "causes": ", ".join(causes),
    }
