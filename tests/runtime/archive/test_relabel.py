"""Deciding again gives the events of a run with these names, margins and rules."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from support.archives import DAY, archive_clip
from support.demo_copies import BUNDLE, CLIP

from ovavel.runtime.archive.care import remove_day
from ovavel.runtime.archive.changes import Setting, changes
from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.relabel import relabelled
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.localizer import Head, Localizer
from ovavel.runtime.pipeline.tracker import EventRules, EventTracker
from ovavel.runtime.session import Session
from ovavel.runtime.types import LAG, Event, RuleKind, Segment

START = DAY + 86_400 - 31  # midnight is inside the drum's event


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    root = tmp_path_factory.mktemp("archive")
    archive_clip(root, START)
    return Archive(root)


class Live(NamedTuple):
    """What a session would decide on, so that the clip is encoded once."""

    segments: list[Segment]
    head: Head

    def events(self, bundle: Bundle, rule: Rule, rules: EventRules) -> list[Event]:
        localizer = Localizer(
            self.head,
            bundle.vocabulary,
            lag=LAG,
            calibration=bundle.manifest.calibration_for(rule),
            rule=rule,
        )
        tracker = EventTracker(
            bundle.vocabulary.background,
            rules,
            vocabulary_version=bundle.vocabulary.version,
            calibration=bundle.manifest.calibration,
        )
        news = [event for segment in self.segments for event in tracker.push(localizer.push(segment))]
        news += [*tracker.push(localizer.flush()), *tracker.close()]
        return [event for event in news if event.state == "end"]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    bundle = Bundle.open(BUNDLE)
    with closing(open_backend(bundle)) as backend, Session(bundle, CLIP, backend=backend) as session:
        yield Live([update.segment for update in session.updates() if update.segment], backend.head)


def few_names(vocabulary: Vocabulary) -> Vocabulary:
    return vocabulary.removed([name for name in vocabulary.names[:-1] if "quickly" in name])


@pytest.mark.parametrize("kind", ["positive", "published", "agreement"])
@pytest.mark.parametrize(
    "rules",
    [
        EventRules(),
        EventRules(start_margin=0.27, keep_margin=0.2),
        EventRules(min_duration_s=4),
        EventRules(bridge_s=0),
    ],
    ids=["own", "margins", "long", "no-bridge"],
)
@pytest.mark.parametrize("names", ["all", "few"])
def test_the_events_are_those_of_a_run(
    archive: Archive, live: Live, kind: RuleKind, rules: EventRules, names: str
) -> None:
    """Unless rounding decides a second, which is counted."""
    bundle, rule = Bundle.open(BUNDLE), Rule(kind=kind)
    if names == "few":
        bundle = replace(bundle, vocabulary=few_names(bundle.vocabulary))
    parts = list(
        relabelled(
            archive.days(),
            bundle.vocabulary,
            rule,
            rules=rules,
            calibration=bundle.manifest.calibration_for(rule),
            margins=bundle.manifest.calibration,
        )
    )
    assert [str(part.day.day) for part in parts] == ["2026-11-28", "2026-11-29"]
    assert sum(part.seconds for part in parts) == 40
    found, expected = [event for part in parts for event in part.events], live.events(bundle, rule, rules)
    same = [(each.start_s - START, each.end_s - START, each.label) for each in found] == [
        (each.start_s, each.end_s, each.label) for each in expected
    ]
    if not same:
        assert sum(part.unsure for part in parts)
        assert (kind, names) == ("agreement", "few"), "names that are alike, and no margin between them"
        return
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.peak_margin == pytest.approx(theirs.peak_margin, abs=0.02), "int8"
        assert (ours.peak_probability is None) == (theirs.peak_probability is None)
        assert ours.vocabulary_version == theirs.vocabulary_version


def test_rounding_that_decides_is_counted(archive: Archive) -> None:
    """With a margin that one second just reaches, that second is unsure."""
    bundle = Bundle.open(BUNDLE)

    def parts(margin: float) -> tuple[int, list[float]]:
        rules = EventRules(start_margin=margin, keep_margin=margin)
        found = list(relabelled(archive.days(), bundle.vocabulary, Rule(kind="positive"), rules=rules))
        return sum(each.unsure for each in found), [event.peak_margin for each in found for event in each.events]

    _, margins = parts(0.05)
    assert any(parts(min(margins) + step)[0] for step in (-1e-4, 0, 1e-4))
    assert parts(1.0) == (0, [])


def test_a_rule_that_looks_at_ten_seconds_is_refused(archive: Archive) -> None:
    bundle = Bundle.open(BUNDLE)
    with pytest.raises(UsageError, match="av2a decides by all ten seconds"):
        next(relabelled(archive.days(), bundle.vocabulary, Rule(kind="av2a")))


def test_a_span_limits_the_seconds(archive: Archive) -> None:
    bundle = Bundle.open(BUNDLE)
    (part,) = relabelled(
        archive.days(from_s=START, to_s=START + 12),
        bundle.vocabulary,
        Rule(kind="positive"),
        from_s=START + 5,
        to_s=START + 12,
    )
    assert part.seconds == 7


def test_a_day_that_was_removed_meanwhile_has_no_seconds(archive: Archive, tmp_path: Path) -> None:
    shutil.copytree(archive.root, tmp_path / "copy")
    days, bundle, rule = Archive(tmp_path / "copy").days(), Bundle.open(BUNDLE), Rule(kind="positive")
    remove_day(days[0])
    assert [part.seconds for part in relabelled(days, bundle.vocabulary, rule)] == [31, 0]
    setting = Setting(rule=rule, rules=EventRules())
    found = changes(days, bundle, setting, setting, from_s=START, to_s=START + 40)
    assert [each.seconds for each in found] == [0, 31]


def test_a_folder_of_another_name_is_no_day(archive: Archive, tmp_path: Path) -> None:
    (archive.root / "context" / "yard" / "20261128").mkdir()
    (archive.root / "context" / "yard" / "notes").mkdir()
    assert len(archive.days()) == 2
