"""What is counted is also written down."""

from __future__ import annotations

from dataclasses import asdict

import msgspec

from ovavel.runtime.economy.counts import EconomyFigures
from ovavel.runtime.sinks.records import economy_record
from ovavel.runtime.types import SkipCause

ELSEWHERE = {"most_at_once", "gflop_all", "gflop_done"}
"""In the summary of a live session, and as the share that was saved."""


def test_all_that_economy_counts_is_written_down() -> None:
    figures = EconomyFigures(
        pictures=100,
        encoded=10,
        reused=20,
        sounds=99,
        sounds_reused=30,
        lost=4,
        skipped={SkipCause.SOUND: 50},
        audited=5,
        audits_failed=1,
        drift_p99=0.00123449,
        drift_max=0.0020001,
        most_at_once=9,
        gflop_all=100.0,
        gflop_done=25.0,
    )
    written = msgspec.json.decode(msgspec.json.encode(economy_record(figures)))
    counted = {name: value for name, value in asdict(figures).items() if name not in ELSEWHERE}
    assert written == counted | {"drift_p99": 0.001234, "drift_max": 0.002, "saved": 0.75}
