"""Runs with economy against runs without: what differs is counted, placed and judged."""

from itertools import groupby

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovavel.eval.demo.assets import Assets
from ovavel.eval.demo.world.day import Day, DaySource
from ovavel.eval.economy.compare import Comparison, StreamResult, compare_runs, cost, published_work, summarize
from ovavel.eval.economy.gate import make_gate
from ovavel.eval.economy.report import COLUMNS, EconomyReport, comparison_cells, hour_parts, hours_svg, to_html, to_json
from ovavel.eval.economy.runs import Found, Hour, StreamRun
from ovavel.eval.economy.streams import Stream, day_streams
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.economy.work import Work

NAMES = ("bell", "dog", "other")
WORK = published_work({})
LABELS = st.lists(st.sampled_from(NAMES), min_size=20, max_size=80)


def run(labels: list[str], mode: str = "auto", **changed: object) -> StreamRun:
    events, second = [], 0
    for label, span in groupby(labels):
        length = len(list(span))
        if label != "other":
            events.append(Found(label=label, start_s=second, end_s=second + length))
        second += length
    hour = Hour(
        seconds=second, pictures=second, encoded=second, reused=0, sounds=second, sounds_reused=0, busy_s=2.0, cpu_s=1.0
    )
    fields = {
        "made_with": "",
        "mode": mode,
        "rule": "positive",
        "note": "",
        "spans": tuple((label, len(list(span))) for label, span in groupby(labels)),
        "events": tuple(events),
        "hours": (hour,),
        "skipped": {},
        "wake_ms": (),
        "usual_ms": 3.0,
        "audited": 0,
        "audits_failed": 0,
        "drift_p99": None,
        "drift_max": None,
    }
    return StreamRun(**(fields | changed))


def stream(labels: list[str], name: str = "one") -> Stream:
    whole = len(labels) // 10 * 10
    truth = np.array([NAMES.index(label) for label in labels[:whole]]).reshape(-1, 10)
    return Stream(
        group="streams", name=name, content="", open=lambda: DaySource(Day("sparse", 0, 1)), truth=truth, events=()
    )


def compared(full: list[str], economy: list[str]) -> Comparison:
    return summarize([compare_runs(stream(full), run(full, "off"), run(economy), NAMES)], WORK)


def report_of(comparison: Comparison, result: StreamResult, work: Work) -> EconomyReport:
    return EconomyReport(
        bundle_sha256="0" * 64,
        model="m",
        ran="here",
        rule="positive",
        lag=2,
        work=work,
        comparisons=(comparison,),
        streams=(result,),
        gate=gate_of(comparison),
        left_out=("test/x: no sound",),
    )


def gate_of(*comparisons: Comparison):
    return make_gate(
        comparisons, Economy(mode="auto"), rule="positive", names="n", decides="d", reference="r", saved=0.5
    )


class TestComparison:
    @settings(max_examples=30, deadline=None)
    @given(full=LABELS, data=st.data())
    def test_every_second_is_equal_or_listed(self, full, data) -> None:
        economy = data.draw(st.lists(st.sampled_from(NAMES), min_size=len(full), max_size=len(full)))
        result = compare_runs(stream(full), run(full, "off"), run(economy), NAMES)
        assert result.seconds == len(full)
        different = [second for second, pair in enumerate(zip(full, economy, strict=True)) if pair[0] != pair[1]]
        assert result.same == len(full) - len(different)
        listed = [
            second for each in result.disagreements for second in range(each.start_s, each.start_s + each.seconds)
        ]
        assert listed == different[: len(listed)]
        assert len(listed) == len(different) or len(result.disagreements) == 40
        for each in result.disagreements:
            assert (each.full, each.economy) == (full[each.start_s], economy[each.start_s])

    @settings(max_examples=20, deadline=None)
    @given(labels=LABELS)
    def test_a_run_equals_itself(self, labels) -> None:
        each = compared(labels, labels)
        assert (each.same, each.event_f, each.moved, each.lost, each.start_s, each.end_s) == (1, 1, 0, 0, 0, 0)
        assert each.full == each.economy

    def test_events_that_move_and_vanish_are_counted(self) -> None:
        full = ["other"] * 5 + ["bell"] * 6 + ["other"] * 5 + ["dog"] * 4 + ["other"] * 10
        late = ["other"] * 6 + ["bell"] * 5 + ["other"] * 19
        each = compared(full, late)
        assert (each.events, each.moved, each.lost, each.start_s, each.end_s) == (2, 1, 1, 1.0, 0.0)
        assert dict(zip(COLUMNS, comparison_cells(each), strict=True))["events moved or lost"] == "2 of 2"
        assert each.event_f == pytest.approx(2 * 1 / 3)
        assert each.same == pytest.approx(25 / 30)

    def test_runs_of_different_length_are_refused(self) -> None:
        with pytest.raises(ValueError, match="shorter"):
            compare_runs(stream(["other"] * 20), run(["other"] * 20, "off"), run(["other"] * 19), NAMES)

    @settings(max_examples=20, deadline=None)
    @given(pictures=st.integers(0, 3600), sounds=st.integers(0, 3600), data=st.data())
    def test_cost_counts_what_is_encoded(self, pictures, sounds, data) -> None:
        encoded = data.draw(st.integers(0, pictures))
        hour = Hour(
            seconds=3600,
            pictures=pictures,
            encoded=encoded,
            reused=0,
            sounds=sounds,
            sounds_reused=0,
            busy_s=1,
            cpu_s=1,
        )
        whole = pictures * WORK.vision_gflop + sounds * WORK.audio_gflop
        done = encoded * WORK.vision_gflop + sounds * WORK.audio_gflop
        assert cost([hour], WORK) == pytest.approx(done / whole if whole else 1)

    def test_the_published_encoders_cost_what_the_documentation_says(self) -> None:
        assert WORK.vision_gflop == pytest.approx(327, abs=1)
        assert WORK.audio_gflop == pytest.approx(38, abs=1)

    @pytest.mark.parametrize(("precision", "share"), [("int8", 38.4), ("int8-pooled", 19.8)])
    def test_work_is_counted_by_the_sound_that_ran(self, precision: str, share: float) -> None:
        """Every sound and a tenth of the pictures, in the table, on the page and in its chart."""
        work = published_work({"vision": "int8", "audio": precision})
        hour = Hour(seconds=10, pictures=10, encoded=1, reused=0, sounds=10, sounds_reused=0, busy_s=1, cpu_s=1)
        quiet = ["other"] * 10
        result = compare_runs(stream(quiet), run(quiet, "off"), run(quiet, hours=(hour,)), NAMES)
        comparison = summarize([result], work)
        assert comparison.cost == pytest.approx((32.7 + share) / (327 + share), rel=0.01)
        assert dict(hour_parts([hour], work))["sounds"] == pytest.approx(share, rel=0.01)
        assert f"{share:.0f} for a sound" in to_html(report_of(comparison, result, work)).decode()


class TestGate:
    FULL = (["other"] * 90 + ["bell"] * 10) * 100

    @pytest.mark.parametrize(("wrong", "passes"), [(0, True), (9, True), (11, False)])
    def test_one_decision_in_a_thousand_may_differ(self, wrong, passes) -> None:
        economy = [*self.FULL]
        for number in range(wrong):  # where it costs the measures least: an event begins a second later
            economy[100 * number + 90] = "other"
        gate = gate_of(compared(self.FULL, economy))
        assert gate.passed is passes
        assert gate.decisions == pytest.approx(1 - wrong / len(self.FULL))
        assert passes or "of the decisions are the same" in gate.failures[0]

    def test_a_measure_may_not_fall(self) -> None:
        # Of 10 000 s, 9 are decided differently: one event in a hundred is gone.
        full = ["other"] * 9900 + (["other"] * 91 + ["bell"] * 9)
        economy = ["other"] * 10_000
        each = compared(full, economy)
        assert each.same > 0.999
        worse = msgspec.structs.replace(each, economy=msgspec.structs.replace(each.economy, eve=0.99 * each.full.eve))
        gate = gate_of(worse)
        assert not gate.passed
        assert any("eve falls from" in failure for failure in gate.failures)

    def test_each_group_has_to_pass_by_itself(self) -> None:
        good = compared(self.FULL, self.FULL)
        bad = compared(self.FULL[:1000], ["dog", "dog", *self.FULL[2:1000]])
        gate = gate_of(good, msgspec.structs.replace(bad, group="rainy days"))
        assert not gate.passed
        assert gate.failures[0].startswith("rainy days: ")

    def test_too_little_shows_nothing(self) -> None:
        assert "only 100 s were compared" in gate_of(compared(self.FULL[:100], self.FULL[:100])).failures[0]
        idle = ["other"] * 2000
        assert "no event" in gate_of(compared(idle, idle)).failures[0]


@pytest.mark.parametrize(("seconds", "stretches"), [(1, 0), (9, 0), (10, 1), (25, 2)])
def test_a_day_of_less_than_ten_seconds_is_compared_without_measures(seconds: int, stretches: int) -> None:
    names = Assets.open().bundle.vocabulary.names
    (day,) = day_streams(["dense"], [0], seconds, names)
    assert (0 if day.truth is None else len(day.truth)) == stretches
    result = compare_runs(day, run([names[-1]] * seconds, "off"), run([names[-1]] * seconds), names)
    assert (result.full is None) is (stretches == 0)
    assert result.same == seconds


def test_a_report_is_written_as_data_and_as_a_page() -> None:
    full = (["other"] * 5 + ["bell"] * 5) * 4
    economy = ["dog", *full[1:]]
    skipping = run(economy, note="auto, but <i> decides", skipped={"background sound": 7}, wake_ms=(5.0,))
    result = compare_runs(stream(full, "<b>"), run(full, "off"), skipping, NAMES)
    comparison = summarize([result], WORK)
    report = report_of(comparison, result, WORK)
    assert msgspec.json.decode(to_json(report), type=EconomyReport) == report
    html = to_html(report).decode()
    for part in (
        "failed: ",
        "background sound",
        "test/x: no sound",
        "&lt;b&gt;",
        "Decided differently",
        "economy auto: auto, but &lt;i&gt;",
    ):
        assert part in html
    assert "<b>" not in html.replace("<b>m</b>", "").split("Decided differently")[1]
    assert len(comparison_cells(comparison)) == len(COLUMNS)
    assert b"hour 1" in hours_svg("streams", [result], WORK)
