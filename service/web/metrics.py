"""Figures for Prometheus, from a registry of their own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from ovavel.service.store.database import rows
from ovavel.service.store.queries import last_seq
from ovavel.service.watch.service import Service

__all__ = ["Metrics"]

_US = 1e6
_STATES = {"start": "open", "end": "ended", "retract": "retracted"}
_NEWS = (
    "SELECT label, kind, count(*) FROM event_log JOIN event ON event.id = event_id "
    "WHERE seq > ? AND seq <= ? AND kind IN ('start', 'end', 'retract') GROUP BY label, kind"
)

_MODES = ("asked", "mode")
_COUNTED = {
    "pictures": ("pictures", "Seconds with a picture."),
    "encoded": ("pictures_encoded", "Pictures that were encoded."),
    "reused": ("pictures_reused", "Pictures that kept the embedding of an earlier one."),
    "sounds": ("sounds", "Seconds with a sound."),
    "sounds_reused": ("sounds_reused", "Sounds that kept the embedding of an earlier one."),
    "lost": ("pictures_lost", "Pictures that were needed and could not be encoded."),
    "audited": ("audits", "Pictures and sounds that were encoded to check what is left out."),
    "audits_failed": ("audits_failed", "Audits that failed."),
}
"""Fields of `EconomySpan`, the names of their metrics, and what they are."""


class Metrics:
    """Collects what the store and the board know at the moment of asking."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._seq, self._events = last_seq(service.store.read), Counter[tuple[str, str]]()
        self._counting = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """In the text format of Prometheus."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every figure."""
        service, read = self._service, self._service.store.read
        up = GaugeMetricFamily("ovavel_camera_up", "Whether the camera is watched.", labels=["camera"])
        last = GaugeMetricFamily(
            "ovavel_camera_last_final_timestamp_seconds", "When its last decision became final.", labels=["camera"]
        )
        reconnects = CounterMetricFamily("ovavel_camera_reconnects", "Ends of its capture process.", labels=["camera"])
        queue = GaugeMetricFamily("ovavel_queue_windows", "Windows that wait for the encoder.", labels=["camera"])
        for camera, feed in service.feeds.items():
            if feed.enabled:  # one that a person has switched off is neither up nor down
                up.add_metric([camera], feed.state == "watching")
            last.add_metric([camera], service.board.final_us(camera) / _US)
            reconnects.add_metric([camera], feed.restarts)
            queue.add_metric([camera], service.queue.waiting(camera))
        lacking = CounterMetricFamily(
            "ovavel_gap_seconds", "Video or audio that windows lacked.", labels=["camera", "sense", "cause"]
        )
        for camera in service.feeds:
            for (sense, cause), seconds in service.board.gap_s(camera).items():
                lacking.add_metric([camera, sense, cause], seconds)
        yield from (up, last, reconnects, queue, lacking)
        windows = CounterMetricFamily("ovavel_windows", "Seconds that were decided on.", labels=["camera"])
        dropped = CounterMetricFamily(
            "ovavel_windows_dropped", "Windows dropped, by cause.", labels=["camera", "cause"]
        )
        gaps = CounterMetricFamily("ovavel_unwatched_seconds", "Time without windows.", labels=["camera", "cause"])
        for camera, final in rows(read, "SELECT camera_id, sum(final) FROM account GROUP BY camera_id"):
            windows.add_metric([camera], final)
        for column, family, scale in (("dropped", dropped, 1.0), ("gap_us", gaps, _US)):
            query = (
                f"SELECT camera_id, key, sum(value) FROM account, json_each(account.{column}) "  # noqa: S608 - fixed
                "GROUP BY camera_id, key"
            )
            for camera, cause, value in rows(read, query):
                family.add_metric([camera, cause], value / scale)
        yield from (windows, dropped, gaps)
        yield self._news()
        yield CounterMetricFamily(
            "ovavel_clock_step_seconds", "By how much the wall clock was set.", value=service.monitor.clock_steps_s
        )
        yield from self._storage()
        yield from self._deliveries()
        yield from service.measures.collect()
        yield from self._economy()
        yield GaugeMetricFamily(
            "ovavel_capacity_windows_per_second",
            "What the encoder managed at the start.",
            value=service.speeds.windows_per_s,
        )
        fits = GaugeMetricFamily(
            "ovavel_capacity_cameras",
            "Cameras like those of the site that the encoder is enough for: at the present saving of the economy, and "
            "in the worst case, if everything moves and sounds.",
            labels=["case"],
        )
        fits.add_metric(["present"], service.fits.at_present)
        fits.add_metric(["worst"], service.fits.worst)
        yield fits
        yield GaugeMetricFamily(
            "ovavel_demand_windows_per_second", "What the cameras bring to the encoder.", value=service.demand
        )
        build = InfoMetricFamily("ovavel_build", "What runs.")
        build.add_metric(
            [],
            {
                "version": version("ovavel"),
                "bundle": service.bundle.sha256[:12],
                "engine": service.encoder.ready.info.engine,
                "device": service.encoder.ready.info.device,
            },
        )
        yield build
        yield CounterMetricFamily("ovavel_encoder_restarts", "Lost encoder processes.", value=service.encoder.restarts)

    def _economy(self) -> Iterator[Metric]:
        runs = GaugeMetricFamily(
            "ovavel_economy_info", "Economy of the camera, as asked for and as it runs.", labels=["camera", *_MODES]
        )
        counters = {
            name: CounterMetricFamily(f"ovavel_economy_{metric}", text, labels=["camera"])
            for name, (metric, text) in _COUNTED.items()
        }
        skipped = CounterMetricFamily(
            "ovavel_economy_skipped_seconds", "Seconds decided without their picture.", labels=["camera", "cause"]
        )
        drift, saved = (
            GaugeMetricFamily(f"ovavel_economy_{name}", text, labels=["camera", "over"])
            for name, text in (
                ("drift_p99", "99th percentile of the drift that audits found, as 1 - cosine."),
                ("saved_ratio", "Share of the encoders' operations that was saved."),
            )
        )
        for camera, feed in self._service.feeds.items():
            found = self._service.economies.report(feed.camera)
            runs.add_metric([camera, *(getattr(found, mode) for mode in _MODES)], 1)
            for name, family in counters.items():
                family.add_metric([camera], getattr(found.since_start, name))
            for cause, seconds in found.since_start.skipped.items():
                skipped.add_metric([camera, cause], seconds)
            for over, span in (("start", found.since_start), ("hour", found.last_hour)):
                if span.drift_p99 is not None:
                    drift.add_metric([camera, over], span.drift_p99)
                if span.saved is not None:
                    saved.add_metric([camera, over], span.saved)
        yield from (runs, *counters.values(), skipped, drift, saved)

    def _news(self) -> Metric:
        """Counted as it comes: rows of the store are deleted one day, and a counter never falls."""
        read = self._service.store.read
        with self._counting:
            newest = last_seq(read)
            for label, kind, count in rows(read, _NEWS, (self._seq, newest)):
                self._events[label, _STATES[kind]] += count
            self._seq = newest
            found = dict(self._events)
        events = CounterMetricFamily(
            "ovavel_events", "Events that began, ended or were retracted.", labels=["label", "state"]
        )
        for (label, state), count in found.items():
            events.add_metric([label, state], count)
        return events

    def _storage(self) -> Iterator[Metric]:
        report = self._service.keeper.retention.report(now_us=time.time_ns() // 1000, upcoming=False)
        held = GaugeMetricFamily("ovavel_storage_bytes", "Space that is taken.", labels=["kind"])
        held.add_metric(["store"], report.store_bytes)
        archivist = self._service.archivist
        for each in (*report.kinds, *archivist.retention.kept):
            held.add_metric([each.kind], each.bytes)
        yield held
        archived = CounterMetricFamily("ovavel_archive_seconds", "Seconds in the archive.", labels=["camera"])
        for camera, seconds in archivist.written.copy().items():
            archived.add_metric([camera], seconds)
        lost = CounterMetricFamily(
            "ovavel_archive_lost_seconds", "Seconds that the archive lacks, by cause.", labels=["camera", "cause"]
        )
        for (camera, cause), seconds in archivist.lost.copy().items():
            lost.add_metric([camera, cause], seconds)
        yield from (archived, lost)
        yield GaugeMetricFamily("ovavel_storage_free_bytes", "Space that is free on the disk.", value=report.free_bytes)
        failed = GaugeMetricFamily(
            "ovavel_assets_failed",
            "Pictures, spectrograms and clips of events in the store that could not be kept, or not recorded.",
            labels=["kind", "cause"],
        )
        query = "SELECT kind, cause, count(*) FROM asset WHERE state = 'failed' GROUP BY kind, cause"
        for kind, cause, count in rows(self._service.store.read, query):
            failed.add_metric([kind, cause], count)
        for kind, count in self._service.keeper.unsettled.copy().items():
            failed.add_metric([kind, "not recorded"], count)
        yield failed

    def _deliveries(self) -> Iterator[Metric]:
        pending = GaugeMetricFamily("ovavel_outbox_pending", "News that waits for a sink.", labels=["sink"])
        done = CounterMetricFamily(
            "ovavel_deliveries", "News that was delivered, failed, or was suppressed.", labels=["sink", "result"]
        )
        oldest = list[int]()
        for sink in self._service.deliveries.states:
            pending.add_metric([sink.id], sink.pending)
            oldest += [sink.oldest_us] if sink.oldest_us is not None else []
            for result, count in sink.results.items():
                done.add_metric([sink.id, result], count)
        age_s = max(0.0, time.time() - min(oldest) / _US) if oldest else 0.0
        yield from (pending, done)
        yield GaugeMetricFamily("ovavel_outbox_oldest_seconds", "Age of the oldest news that waits.", value=age_s)
