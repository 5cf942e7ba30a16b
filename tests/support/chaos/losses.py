"""Whether each loss has its cause where people look for it: on the page, among the metrics, and at the MQTT broker."""

from __future__ import annotations

import contextlib
import html
import re
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from ovavel.service.store.accounts import HOUR_US
from ovavel.service.store.database import Transaction, rows
from support.chaos.place import Place
from support.service import until

__all__ = ["Losses", "lacking_s"]

Loss = tuple[str, str, str]
"""Camera; "losses", or the sense that was missing; cause."""

_NAMED_S = 180.0
"""Longer than the longest pause of a receiver that was away."""
_ACCOUNTED = """
SELECT camera_id, key, value FROM account, json_each(account.dropped) WHERE hour_us >= :from_us
UNION ALL SELECT camera_id, key, value / 1e6 FROM account, json_each(account.gap_us) WHERE hour_us >= :from_us
"""
_METRICS = {"ovavel_windows_dropped_total", "ovavel_unwatched_seconds_total"}


class Losses:
    """What was lost so far, and by which fault that was first seen."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.first: dict[Loss, str] = {}
        """Loss → the fault after which it was first seen."""
        self._owed: set[Loss] = set()

    def check(self, fault: str, store: Transaction) -> list[str]:
        """What page and metrics do not name of that which was lost up to now. The broker has until `rest`."""
        place, now_us = self._place, self._place.clock.now_us
        lost, lately = _accounted(store, 0), _accounted(store, now_us - now_us % HOUR_US - HOUR_US)
        metrics = _metrics(place.page("metrics"))
        wrong = [
            f"{camera} lost {seconds:.1f} s, {cause!r}, and the metrics say {metrics[camera, where, cause]}"
            for (camera, where, cause), seconds in lost.items()
            if metrics[camera, where, cause] < seconds - 1e-3
        ]
        seen = [loss for loss, seconds in (lately | _senses(metrics)).items() if seconds >= 1]
        shown = [[html.unescape(cell) for cell in row] for row in _table_rows(place.page("health"))]
        wrong += [
            f"{where} of {camera}: the page does not name {cause!r}"
            for camera, where, cause in seen
            if not any(_names(row, camera, where, cause) for row in shown)
        ]
        for loss in seen:
            if loss not in self.first:
                self.first[loss] = fault
                self._owed.add(loss)
        return wrong

    def forget(self) -> None:
        """The service is about to start again: what it counted of missing senses is no longer known."""
        self._owed = {loss for loss in self._owed if loss[1] == "losses"}

    def rest(self) -> list[str]:
        """Wait for the broker to hear of all that was lost; what it did not hear of."""
        named = self._place.receivers.named
        if named is None:
            return []
        with contextlib.suppress(AssertionError):
            until(lambda: not self._owed - named, _NAMED_S)
        return [f"after {self.first[each]}: the broker did not hear of {each}" for each in sorted(self._owed - named)]


def _accounted(store: Transaction, from_us: int) -> Counter[Loss]:
    lost = Counter[Loss]()
    for camera, cause, seconds in rows(store, _ACCOUNTED.replace(":from_us", str(int(from_us)))):
        lost[camera, "losses", cause] += seconds
    return lost


def _metrics(text: str) -> Counter[Loss]:
    found = Counter[Loss]()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name in _METRICS:
                found[labels["camera"], "losses", labels["cause"]] += sample.value
            elif sample.name == "ovavel_gap_seconds_total":
                found[labels["camera"], labels["sense"], labels["cause"]] += sample.value
    return found


def _senses(metrics: Counter[Loss]) -> Counter[Loss]:
    return Counter({loss: seconds for loss, seconds in metrics.items() if loss[1] != "losses"})


def lacking_s(place: Place, camera: str, sense: str) -> float:
    """Seconds that windows of the camera lacked of this sense since the service started, as the metrics say."""
    found = _senses(_metrics(place.page("metrics")))
    return sum(seconds for (each, missing, _), seconds in found.items() if (each, missing) == (camera, sense))


def _table_rows(page: str) -> list[list[str]]:
    lines = re.findall(r"<tr>(<td.*?)</tr>", page, re.DOTALL)
    return [re.findall(r"<td[^>]*>(.*?)</td>", line, re.DOTALL) for line in lines]


def _names(row: list[str], camera: str, where: str, cause: str) -> bool:
    if where == "losses":
        return row[0] == camera and len(row) == 6 and re.search(rf"(^|, ){re.escape(cause)} \d", row[-1]) is not None
    return row[:3] == [camera, where, cause]
