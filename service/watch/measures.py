"""What the service measures of itself while it works, as histograms for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Histogram, Metric

__all__ = ["Measures"]

_LATENCY_S = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
_COMMIT_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5)
_BATCH = (1, 2, 4, 8, 16, 32)


class Measures:
    """Histograms; `collect` gives them to a registry. `observe` may be called from any thread."""

    def __init__(self) -> None:
        self.latency_s = Histogram(
            "ovavel_decision_latency_seconds",
            "From the end of a window to its decisions in the store.",
            ["camera"],
            registry=None,
            buckets=_LATENCY_S,
        )
        self.batch = Histogram(
            "ovavel_encoder_batch_size",
            "Windows, or sounds or pictures of them, that were encoded together.",
            registry=None,
            buckets=_BATCH,
        )
        self.commit_s = Histogram(
            "ovavel_db_commit_seconds",
            "How long transactions took to reach the disk.",
            registry=None,
            buckets=_COMMIT_S,
        )

    def collect(self) -> Iterable[Metric]:
        """All of them at this moment."""
        for each in (self.latency_s, self.batch, self.commit_s):
            yield from each.collect()
