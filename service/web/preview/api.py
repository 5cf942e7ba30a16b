"""The preview of settings in the API: events as they would have been, beside those that are in the store."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.runtime.archive.changes import Difference, Kind
from ovavel.runtime.archive.decisions import check_each_second
from ovavel.runtime.bundle.precision import is_pooled
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.rules.apply import live_rule
from ovavel.service.archive.messages import Compared, Margins, Trying
from ovavel.service.config.sinks import Seconds
from ovavel.service.config.site import Camera, Share
from ovavel.service.names.adopt import rule_of
from ovavel.service.store.queries import Bar, EventFilter, list_bars
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, asking, read_json
from ovavel.service.web.search.questions import Questions

__all__ = ["MOST", "PreviewAPI", "Previewed", "Recorded", "ShownDifference", "TriedSettings"]

_US = 1_000_000
_DAY_S = 86_400
_MOST_BARS = 100_000
_OFF_US = 1_000_000
"""The archive files a second under a whole second of UTC, so an event may be so far from where the store has it."""
_NEAR_US = 3_600_000_000
"""An event of the store may begin before what is left of it in the archive."""
MOST = 2000
"""Events of a day that are listed, those that change first; all of them are counted."""


class TriedSettings(Struct, kw_only=True, forbid_unknown_fields=True):
    """Settings to try. What is left out is as the site file has it; null is the bundle's own."""

    cameras: Annotated[tuple[str, ...], Meta(min_length=1, max_length=64)]
    days: Annotated[float, Meta(gt=0, le=366)] = 7
    """So many days until now."""
    start_margin: Share | UnsetType | None = UNSET
    keep_margin: Share | UnsetType | None = UNSET
    min_duration_s: Seconds | UnsetType = UNSET
    bridge_s: Seconds | UnsetType = UNSET
    fusion: Annotated[str, Meta(max_length=100)] | None = None
    """Decision rule, such as "agreement"; null: the bundle's own."""


class ShownDifference(Struct, kw_only=True):
    """An event with the settings in force, with those to try, or with both."""

    kind: Kind
    label: str
    start_us: int
    """With the settings to try; of an event that is gone, with those in force."""
    end_us: int
    margin: float
    probability: float | None
    before_start_us: int | None
    """With the settings in force; null where it is new."""
    before_end_us: int | None
    event_id: str | None
    """The event of this name in the store at that time."""


class Previewed(Struct, kw_only=True):
    """What is known of a camera once another day was decided on."""

    done: int
    days: int
    camera: str
    from_us: int
    """All of its events that begin from here on are known by now."""
    to_us: int
    """And those from here on were known before."""
    asked_s: int
    """Seconds of all cameras that were asked for; those that are not among `seconds` are not in the archive."""
    seconds: int
    """Seconds of the day that were decided on."""
    other_model: int
    """Seconds of all days that the archive has of another model, which cannot be compared."""
    unreadable: int
    """Folders of the archive that cannot be read: a day of a camera each, or all of them."""
    unsure: int
    """Seconds that the rounding of the archive may have decided with the settings to try."""
    recorded: int
    """Events of the store that begin in this time."""
    unmatched: int
    """Those of them that the settings in force would not give today: they had other settings or names, or their seconds
    are not in the archive."""
    counts: dict[str, dict[Kind, int]]
    """Label → kind → how many events."""
    left_out: int
    """Events that are counted and not listed."""
    differences: list[ShownDifference]


class PreviewAPI:
    """Route of /api/v1/preview."""

    def __init__(self, service: Service, questions: Questions) -> None:
        """`questions`: to the archive, by everybody."""
        self._service, self._questions = service, questions

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [Route("/api/v1/preview", self.preview, methods=["POST"])]

    async def preview(self, request: Request) -> Response:
        """Decide on the last days with other settings: "found" for each day, then "end", or "problem".

        Whoever hangs up cancels it.
        What is compared is decided twice on the same archived seconds, with the settings in force and with those to
        try, so that a difference is due to the settings alone.
        """
        asking(request, "operate")
        trying = self._trying(await read_json(request, TriedSettings))
        asked_s = (trying.to_s - trying.from_s) * len(trying.cameras)
        return await self._questions.answered(trying, lambda found: self._shown(found, asked_s))

    def _trying(self, tried: TriedSettings) -> Trying:
        service = self._service
        known = {camera.id: camera for camera in service.site.camera}
        if unknown := [camera for camera in tried.cameras if camera not in known]:
            raise Problem(404, f"there is no camera {unknown[0]!r}")
        to_s = int(time.time())
        try:
            self._check_rule(tried.fusion)
            cameras = {each: self._settings(known[each], tried) for each in tried.cameras}
        except UsageError as error:
            raise Problem(422, str(error)) from error
        return Trying(
            archive=self._questions.folder,
            bundle=str(service.bundle.path),
            cameras=cameras,
            fusion=tried.fusion,
            from_s=max(0, to_s - round(tried.days * _DAY_S)),
            to_s=to_s,
            pooled=is_pooled(service.encoder.ready.info.precision),
        )

    def _settings(self, camera: Camera, tried: TriedSettings) -> tuple[Margins, Margins]:
        """Those in force, and those to try. Raises UsageError where they do not fit together."""
        before = Margins(**{name: getattr(camera, name) for name in Margins.__struct_fields__})
        given: dict[str, Any] = {name: getattr(tried, name) for name in Margins.__struct_fields__}
        changed = {name: value for name, value in given.items() if value is not UNSET}
        after = msgspec.structs.replace(before, **changed)
        after.rules.margins(self._service.bundle.manifest.calibration)
        return before, after

    def _check_rule(self, name: str | None) -> None:
        bundle = self._service.bundle
        fusion, texts = bundle.manifest.fusion, len(bundle.vocabulary.background_texts)
        check_each_second(rule_of(bundle))
        check_each_second(live_rule(fusion.decides, fusion.decision, name, bundle.vocabulary.names, texts))

    def _shown(self, found: Compared, asked_s: int) -> Previewed:
        from_us, to_us = found.from_s * _US, found.to_s * _US
        recorded = Recorded(
            list_bars(
                self._service.store.read,
                EventFilter(camera=found.camera, from_us=from_us - _NEAR_US, to_us=to_us + _NEAR_US),
                limit=_MOST_BARS,
            )
        )
        counts: dict[str, dict[Kind, int]] = {}
        listed: list[ShownDifference] = []
        matched: set[str] = set()
        for each in sorted(found.differences, key=lambda each: each.kind == "kept"):
            event_id = recorded.event_of(each)
            if each.kind != "new" and event_id:
                matched.add(event_id)
            of_label = counts.setdefault(each.label, {})
            of_label[each.kind] = of_label.get(each.kind, 0) + 1
            if len(listed) < MOST:
                listed.append(_difference(each, event_id))
        inside = {bar.id for bar in recorded.bars if from_us <= bar.start_us < to_us}
        return Previewed(
            done=found.done,
            days=found.days,
            camera=found.camera,
            from_us=from_us,
            to_us=to_us,
            asked_s=asked_s,
            seconds=found.seconds,
            other_model=found.other_model,
            unreadable=found.unreadable,
            unsure=found.unsure,
            recorded=len(inside),
            unmatched=len(inside - matched),
            counts=counts,
            left_out=len(found.differences) - len(listed),
            differences=listed,
        )


class Recorded:
    """Events of the store of one camera, to be found by label and time."""

    def __init__(self, bars: Sequence[Bar]) -> None:
        """`bars`: oldest first."""
        self.bars = bars
        self._by_label: dict[str, list[Bar]] = {}
        for bar in bars:
            self._by_label.setdefault(bar.label, []).append(bar)

    def event_of(self, difference: Difference) -> str | None:
        """The event of that label that has most in common with it; None where none is there at that time."""
        start_us, end_us = _span_us(difference)
        bars = self._by_label.get(difference.label, [])
        best: tuple[int, str] | None = None
        for at in range(bisect_left(bars, end_us + _OFF_US, key=lambda bar: bar.start_us) - 1, -1, -1):
            common = min(bars[at].end_us, end_us) - max(bars[at].start_us, start_us)
            if common <= -_OFF_US:
                break  # events of one label do not overlap, so those before it are farther away
            best = max(best or (common, bars[at].id), (common, bars[at].id))
        return best and best[1]


def _span_us(difference: Difference) -> tuple[int, int]:
    """Of the settings in force, where it has them: those are what was recorded."""
    start_s, end_s = difference.before_start_s, difference.before_end_s
    return round(_or(start_s, difference.start_s) * _US), round(_or(end_s, difference.end_s) * _US)


def _or(before: float | None, now: float) -> float:
    return now if before is None else before


def _difference(found: Difference, event_id: str | None) -> ShownDifference:
    return ShownDifference(
        kind=found.kind,
        label=found.label,
        start_us=round(found.start_s * _US),
        end_us=round(found.end_s * _US),
        margin=found.margin,
        probability=found.probability,
        before_start_us=None if found.before_start_s is None else round(found.before_start_s * _US),
        before_end_us=None if found.before_end_s is None else round(found.before_end_s * _US),
        event_id=event_id,
    )
