from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.tracker import EventRules, EventTracker
from ovavel.runtime.types import Event, SegmentScores

LABELS = ("dog", "car", "other")


def scored(index: int, label: str, *, margin: float = 1.0, final: bool = True) -> SegmentScores:
    scores = np.zeros(3, np.float32)
    scores[LABELS.index(label)] = 1.0
    if label != "other":
        scores[-1] = 1.0 - margin
    return SegmentScores(
        index=index,
        start_s=float(index),
        label=label,
        score=1.0,
        scores=scores,
        vision_similarity=scores,
        audio_similarity=scores,
        context=1,
        final=final,
    )


def stream(labels: str, rules: EventRules | None = None, margins: list[float] | None = None) -> list[Event]:
    """Events of final decisions given as a string: d dog, c car, . background."""
    tracker = EventTracker("other", rules)
    names = {"d": "dog", "c": "car", ".": "other"}
    news: list[Event] = []
    for i, sign in enumerate(labels):
        news += tracker.push([scored(i, names[sign], margin=margins[i] if margins else 1.0)])
    return news + tracker.close()


def ended(news: list[Event]) -> list[tuple[str, float, float]]:
    return [(e.label, e.start_s, e.end_s) for e in news if e.state == "end"]


@pytest.mark.parametrize(
    ("labels", "rules", "events"),
    [
        ("ddd...", {}, [("dog", 0, 3)]),
        (".ddd", {}, [("dog", 1, 4)]),
        ("dd.dd..", {}, [("dog", 0, 5)]),
        ("dd.dd..", {"bridge_s": 0}, [("dog", 0, 2), ("dog", 3, 5)]),
        ("dd..dd..", {}, [("dog", 0, 2), ("dog", 4, 6)]),
        ("ddcc..", {}, [("dog", 0, 2), ("car", 2, 4)]),
        ("d..cc..", {"min_duration_s": 2}, [("car", 3, 5)]),
        ("......", {}, []),
    ],
)
def test_runs_of_a_label_become_events(labels: str, rules: dict[str, float], events: list[object]) -> None:
    assert ended(stream(labels, EventRules(**rules))) == events


def test_hysteresis_needs_more_to_begin_than_to_go_on() -> None:
    news = stream("ddddd", EventRules(start_margin=0.5, keep_margin=0.2, bridge_s=0), margins=[0.3, 0.6, 0.3, 0.1, 0.3])
    assert ended(news) == [("dog", 1, 3)]
    assert [e.peak_margin for e in news if e.state == "end"] == pytest.approx([0.6])


def test_an_event_is_reported_at_once_and_retracted_when_context_revises_it() -> None:
    tracker = EventTracker("other")
    assert [e.state for e in tracker.push([scored(0, "dog", final=False)])] == ["start"]
    news = tracker.push([scored(0, "other"), scored(1, "car", final=False)])
    assert [(e.id, e.label, e.state) for e in news] == [(1, "dog", "retract"), (2, "car", "start")]
    assert [(e.id, e.state) for e in tracker.close()] == [(2, "retract")]


def test_a_revised_start_updates_the_event_it_belongs_to() -> None:
    tracker = EventTracker("other")
    tracker.push([scored(0, "other", final=False), scored(1, "dog", final=False)])
    news = tracker.push([scored(0, "dog"), scored(1, "dog", final=False), scored(2, "dog", final=False)])
    assert [(e.id, e.state, e.start_s, e.end_s) for e in news] == [(1, "update", 0, 3)]


def test_events_carry_the_vocabulary_in_force() -> None:
    tracker = EventTracker("other", vocabulary_version="a")
    first = tracker.push([scored(0, "dog")])
    tracker.vocabulary_version = "b"
    assert [e.vocabulary_version for e in first + tracker.push([scored(1, "car")])] == ["a", "b"]


decisions = st.lists(st.tuples(st.sampled_from(LABELS), st.floats(0, 1)), min_size=1, max_size=25)
rules = st.builds(
    lambda on, share, least, bridge: EventRules(
        start_margin=on, keep_margin=on * share, min_duration_s=least, bridge_s=bridge
    ),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0, 1, 2, 3.5]),
    st.sampled_from([0, 1, 2.5]),
)


@given(st.data(), decisions, rules, st.integers(0, 9), st.booleans())
def test_whatever_happens_every_start_ends_once_and_final_events_do_not_depend_on_the_way(
    data: st.DataObject, final: list[tuple[str, float]], rules: EventRules, lag: int, flushed: bool
) -> None:
    """Provisional decisions may say anything; the events that end are those of the final decisions alone."""
    tracker = EventTracker("other", rules)
    news: list[Event] = []
    for newest in range(len(final)):
        scores = []
        for i in range(max(0, newest - lag), newest + 1):
            label, margin = final[i] if i <= newest - lag else data.draw(decisions.map(lambda d: d[0]))
            scores.append(scored(i, label, margin=margin, final=i <= newest - lag))
        news += tracker.push(scores)
    certain = final[: max(0, len(final) - lag)]
    if flushed:
        news += tracker.push([scored(i, *final[i][:1], margin=final[i][1]) for i in range(len(certain), len(final))])
        certain = final
    news += tracker.close()

    states: dict[int, list[str]] = {}
    for event in news:
        states.setdefault(event.id, []).append(event.state)
    for reported in states.values():
        assert reported[0] == "start"
        assert reported[-1] in ("end", "retract")
        assert set(reported[1:-1]) <= {"update"}

    alone = EventTracker("other", rules)
    expected: list[Event] = []
    for i, (label, margin) in enumerate(certain):
        expected += alone.push([scored(i, label, margin=margin)])
    expected += alone.close()
    assert Counter(ended(news)) == Counter(ended(expected))
    assert not [e for e in expected if e.state == "retract"]


@pytest.mark.parametrize(
    "bad",
    [
        {"start_margin": 0.1, "keep_margin": 0.2},
        {"start_margin": 1.5},
        {"bridge_s": -1},
        {"min_duration_s": -1},
        {"bridge_s": float("inf")},
    ],
)
def test_rules_that_contradict_themselves_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        EventRules(**bad)
