"""The pages: HTML made here, kept up to date by the stream of news."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ovavel.service.evidence.retention import GB, KindReport, StorageReport
from ovavel.service.store.accounts import HOUR_US, Account, read_accounts
from ovavel.service.watch.economy.site import CameraEconomy
from ovavel.service.watch.service import Service
from ovavel.service.web.api import API
from ovavel.service.web.templates import Templates

__all__ = ["Pages"]

_HALF_SECOND_US = 500_000
_SHOWN = 8
"""Of the next deletions."""


class Pages:
    """Now, Events and Health."""

    def __init__(self, service: Service, api: API, templates: Templates) -> None:
        self._service, self._api, self._templates = service, api, templates

    @property
    def routes(self) -> list[BaseRoute]:
        """All of it."""
        return [
            Route("/", self.now),
            Route("/health", self.health),
        ]

    def now(self, request: Request) -> Response:
        """What each camera sees and hears."""
        return self._page(request, "Now", cameras=self._api.camera_list())

    def health(self, request: Request) -> Response:
        """Whether it does its work, and what became of every second."""
        encoder, now_us = self._service.encoder, time.time_ns() // 1000
        info = encoder.ready.info
        names = {each["id"]: each["name"] for each in self._api.camera_list()}
        found = [
            account
            for camera in self._service.feeds
            for account in read_accounts(self._service.store.read, camera, from_us=now_us - 24 * HOUR_US)
        ]
        return self._page(
            request,
            "Health",
            reasons=self._api.unready(),
            rejected=self._service.rejected,
            cameras=self._api.camera_list(),
            accounts=[
                _account(each, names.get(each.camera_id, each.camera_id))
                for each in sorted(found, key=lambda each: (each.camera_id, -each.hour_us))
            ],
            lacking=[
                (names.get(camera, camera), sense, cause, str(seconds))
                for camera in self._service.feeds
                for sense, causes in self._service.board.lacking(camera).items()
                for cause, seconds in causes.items()
            ],
            engine=f"{info.engine} on {info.device}, {', '.join(f'{g} {p}' for g, p in info.precision.items())}",
            gate=encoder.ready.gate,
            restarts=encoder.restarts,
            economy=[
                (names.get(camera, camera), *row)
                for camera, found in self._api.economy().items()
                for row in _economy(found)
            ],
            capacity=f"{self._service.speeds.windows_per_s:.3g}",
            fits=self._service.fits,
            demand=f"{self._service.demand:.3g}",
            sinks=self._service.deliveries.states,
            storage=_storage(
                self._service.keeper.retention.report(now_us=now_us), self._service.archivist.retention.kept, now_us
            ),
            archive=self._archive(names),
        )

    def _archive(self, names: Mapping[str, str]) -> dict[str, Any]:
        archivist = self._service.archivist
        return {
            "troubles": [
                *([f"The archive is not written: {archivist.trouble}"] if archivist.trouble else []),
                *(
                    f"The archive of {names.get(camera, camera)} is not written: {why}"
                    for camera, why in archivist.failing.copy().items()
                ),
                *([f"The archive is not kept within its limits: {archivist.overdue}"] if archivist.overdue else []),
            ],
            "lost": [
                (names.get(camera, camera), cause, str(seconds))
                for (camera, cause), seconds in sorted(archivist.lost.copy().items())
            ],
        }

    def _page(self, request: Request, title: str, **content: Any) -> Response:
        return self._templates.answer(request, f"{title.lower()}.html", title=title, **content)


def _economy(economy: CameraEconomy) -> Iterator[tuple[str, ...]]:
    """A row of the table for each span of time."""
    differs = f" (asked for: {economy.asked})" if economy.mode != economy.asked else ""
    runs = f"{economy.mode}{differs}"
    for over, span in (("the last hour", economy.last_hour), ("since the start", economy.since_start)):
        yield (
            runs,
            economy.why_not,
            over,
            str(span.pictures),
            f"{span.encoded}" + (f", {span.lost} lost" if span.lost else ""),
            f"{span.reused}" + (f", sounds {span.sounds_reused}" if span.sounds_reused else ""),
            ", ".join(f"{cause} {seconds}" for cause, seconds in span.skipped.items()) or "–",
            f"{span.audited}, {span.audits_failed} failed" if span.audited else "–",
            "–" if span.drift_p99 is None else f"{span.drift_p99:.4f}",
            "not known" if span.saved is None else f"{span.saved:.0%}",
        )


def _storage(report: StorageReport, archive: Sequence[KindReport], now_us: int) -> dict[str, Any]:
    return {
        "free": _size(report.free_bytes),
        "waits": f"{report.waits_s / 3600:.1f}" if report.waits_s else "",
        "kinds": [
            (
                each.kind,
                str(each.files),
                _size(each.bytes),
                _size(each.pinned_bytes),
                _day(each.oldest_us) if each.oldest_us is not None else "–",
            )
            for each in (*report.kinds, *archive)
        ],
        "next": [
            (each.kind, _day(each.end_us), _size(each.bytes), "now" if each.due_us <= now_us else _day(each.due_us))
            for each in report.next[:_SHOWN]
        ],
    }


def _size(size: int) -> str:
    return f"{size / GB:.2f} GB" if size >= GB // 10 else f"{size / 1e6:.1f} MB"


def _day(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d")


def _account(account: Account, name: str) -> dict[str, str]:
    causes = [f"{cause} {count}" for cause, count in account.dropped.items()]
    causes += [f"{cause} {us / 1e6:.0f} s" for cause, us in account.gap_us.items() if us >= _HALF_SECOND_US]
    return {
        "camera": name,
        "hour": datetime.fromtimestamp(account.hour_us / 1e6, UTC).strftime("%Y-%m-%d %H:00"),
        "final": str(account.final),
        "dropped": str(sum(account.dropped.values())),
        "gap": f"{sum(account.gap_us.values()) / 1e6:.0f}",
        "causes": ", ".join(causes),
    }
