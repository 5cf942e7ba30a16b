"""Try phrases: add each one alone to a bundle's vocabulary, and decide on recordings again.

Recordings go through the encoders once. Each phrase then gets its own decisions from the same `Localizer` that runs
live, so the counts are those the bundle would give with that phrase in its vocabulary.

Shapes: T seconds of a recording, C names with the background last, D embedding size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.datasets.cut import read_windows
from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary, normalize_text
from ovavel.runtime.errors import MediaError, UsageError, VocabularyError
from ovavel.runtime.pipeline.channels import Channel
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.pipeline.fusion import fused_labels
from ovavel.runtime.pipeline.localizer import Head, Localizer
from ovavel.runtime.pipeline.preprocess import sound_rate
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.types import Segment, SegmentScores, Window

__all__ = ["Phrase", "Recording", "Trial", "encode_recording", "parse_truth", "try_phrases"]

WORKS = 0.5
"""Minimum F score of a phrase that works."""

_TIE = 1e-4


class _Deciding(NamedTuple):
    """What decides."""

    head: Head
    rule: Rule | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """A recording as the encoders see it."""

    name: str
    segments: tuple[Segment, ...]
    """T segments."""
    event: NDArray[np.bool_]
    """(T,) whether the event is present according to the user; True everywhere by default. A second without one of the
    senses is never included: no phrase could find it."""
    missing_s: int
    """Number of seconds without one of the senses."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipResult:
    """One phrase on one recording, or the unchanged vocabulary."""

    name: str
    labels: tuple[str, ...]
    """T decisions."""
    margin: NDArray[np.float32]
    """(T,) fused score of the phrase minus that of the background; NaN where a sense is missing."""
    lead: NDArray[np.float32]
    """(T,) fused score of the phrase minus that of the strongest other class or background; NaN likewise."""
    rivals: tuple[str, ...]
    """T names: that strongest other class."""
    vision_similarity: NDArray[np.float32]
    """(T,) cosine between phrase and frame after the temporal head; NaN likewise."""
    audio_similarity: NDArray[np.float32]
    """(T,) cosine between phrase and sound after the temporal head; NaN likewise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Phrase:
    """Result of a phrase over all recordings. Means are over the seconds of the event."""

    phrase: str
    label: str
    """The phrase as spelled in the vocabulary."""
    rank: int
    """1 for the best; ties share a rank."""
    in_vocabulary: bool
    """Whether the vocabulary already contained it."""
    won_s: int
    """Seconds of the event that would get its name."""
    event_s: int
    """Seconds of the event."""
    elsewhere_s: int
    """Seconds without the event that would get its name: false alarms."""
    f: float
    """F score of its seconds in [0, 1], as for a row of Seg. (docs/method.md, Metrics)."""
    margin: float
    """Mean fused score minus the background's."""
    lead: float
    """Mean fused score minus that of the strongest other class."""
    vision_similarity: float
    audio_similarity: float
    rival: str
    """The most frequent strongest other class."""
    clips: tuple[ClipResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """All phrases, best first, and the decisions without any of them."""

    phrases: tuple[Phrase, ...]
    before: tuple[tuple[str, ...], ...]
    """T decisions for each recording with the unchanged vocabulary."""
    background: str

    @property
    def works(self) -> bool:
        """Whether the best phrase reaches an F score of `WORKS`."""
        return self.phrases[0].f >= WORKS


def parse_truth(said: Sequence[str], clips: Sequence[Path]) -> dict[Path, tuple[tuple[float, float], ...]]:
    """Read `CLIP=START-END[,START-END…]` or `CLIP=none`, in seconds, into spans by clip.

    Raises:
        UsageError: the format is wrong, an end is not after its start, or not exactly one clip matches.
    """
    found: dict[Path, tuple[tuple[float, float], ...]] = {}
    for words in said:
        name, sign, spans = words.rpartition("=")
        if not sign:
            raise UsageError(f"--truth {words!r} lacks its =SECONDS; for example {clips[0].name}=3-8,12-15")
        meant = [clip for clip in clips if name == str(clip)] or [clip for clip in clips if name == clip.name]
        if len(meant) != 1:
            fault = (
                "matches several recordings; give the full path" if len(meant) > 1 else "matches none of the recordings"
            )
            raise UsageError(f"--truth {words!r} {fault}; for example {clips[0].name}=3-8,12-15")
        if meant[0] in found:
            raise UsageError(f"--truth names {name} twice; put all its spans in one, such as {name}=3-8,12-15")
        found[meant[0]] = () if spans == "none" else tuple(_span(span, words) for span in spans.split(","))
    return found


def _span(span: str, words: str) -> tuple[float, float]:
    start, _, end = span.partition("-")
    try:
        start_s, end_s = float(start), float(end)
    except ValueError:
        raise UsageError(f"--truth {words!r}: {span!r} is not START-END in seconds, such as 3-8, nor 'none'") from None
    if not 0 <= start_s < end_s < float("inf"):
        raise UsageError(f"--truth {words!r}: {span!r} must begin at 0 or later and end after its start")
    return start_s, end_s


def encode_recording(
    path: Path,
    backend: Backend,
    truth: Sequence[tuple[float, float]] | None = None,
    *,
    channel: Channel = "auto",
    progress: Progress = no_progress,
) -> Recording:
    """Run the encoders over a recording. `truth`: spans in seconds that hold the event; None: all of it may.

    A second counts as event if at least half of it lies in a span. `channel` is the channel of the sound to
    listen to. `progress` is called with the number of seconds done.

    Raises:
        MediaError: it cannot be read, has unusable frames, or is shorter than half a second.
        UsageError: a span of `truth` begins after its end.
    """
    with closing(MediaSource(path)) as source:
        duration_s = source.duration_s
    encoder, segments, waiting = Encoder(backend), list[Segment](), list[Window]()
    try:
        for window in read_windows(path, channel, rate_hz=sound_rate(backend.encoders)):
            waiting.append(window)
            if len(waiting) == backend.info.batch:
                segments += encoder.encode(waiting)
                waiting.clear()
                progress("encoding", len(segments), duration_s)
        segments += encoder.encode(waiting)
    except UsageError as error:  # of unusable frames
        raise MediaError(f"{path}: {error}") from error
    finally:
        encoder.close()
    if not segments:
        raise MediaError(f"{path} holds less than half a second; give a longer recording")
    seconds = np.arange(len(segments))
    event = np.full(len(segments), truth is None)
    for start_s, end_s in truth or ():
        if start_s >= len(segments):
            raise UsageError(f"--truth begins at {start_s:g} s, but {path} has {len(segments)} s")
        event |= np.minimum(seconds + 1, end_s) - np.maximum(seconds, start_s) >= 0.5
    missing = np.array([bool(segment.missing) for segment in segments])
    return Recording(name=str(path), segments=tuple(segments), event=event & ~missing, missing_s=int(missing.sum()))


def try_phrases(
    recordings: Sequence[Recording],
    phrases: Sequence[str],
    embeddings: TextEmbeddings,
    vocabulary: Vocabulary,
    head: Head,
    *,
    rule: Rule | None = None,
    progress: Progress = no_progress,
) -> Trial:
    """Add each phrase alone to `vocabulary`, decide on every recording again, and rank the phrases.

    Args:
        recordings: at least one, with at least one second of the event among them.
        phrases: at least one; one that the vocabulary has already is tried in place.
        embeddings: of the phrases, for each sense, unit norm.
        vocabulary: what the phrases are added to; it may contain only the background.
        head: `Backend.head`.
        rule: that decides; None: the head's own scores do.
        progress: called with the phrase being tried.

    Raises:
        VocabularyError: no phrase is given, or one is the background.
        UsageError: no second of the event has both senses.
    """
    if not phrases:
        raise VocabularyError("which phrases? Give --phrases, for example --phrases 'dog barking'")
    if not any(recording.event.any() for recording in recordings):
        raise UsageError(
            "no second of the recordings can hold the event: it needs both picture and sound, and --truth must not "
            "be 'none' for all of them"
        )
    known = [normalize_text(name) for name in vocabulary.names]
    tried: list[Phrase] = []
    for number, phrase in enumerate(phrases, 1):
        progress(f"trying {one_line(phrase)}", number, len(phrases))
        key = normalize_text(phrase)
        if key == known[-1]:
            raise VocabularyError(f"{phrase!r} is the background, which is always in a vocabulary; try other words")
        there = key in known
        words = vocabulary if there else vocabulary.added([phrase], embeddings[number - 1 : number])
        c = known.index(key) if there else len(words) - 2
        clips = tuple(_on_clip(recording, words, c, _Deciding(head, rule)) for recording in recordings)
        tried.append(_sum_up(phrase, words.names[c], clips, recordings, in_vocabulary=there))
    before = tuple(
        tuple(s.label for s in _decide(recording, vocabulary, _Deciding(head, rule))) for recording in recordings
    )
    return Trial(phrases=rank(tried), before=before, background=vocabulary.background)


def _decide(recording: Recording, vocabulary: Vocabulary, by: _Deciding) -> list[SegmentScores]:
    """Return the final decision on every second, as in live use."""
    localizer = Localizer(by.head, vocabulary, rule=by.rule)
    scores = [s for segment in recording.segments for s in localizer.push(segment) if s.final]
    return scores + localizer.flush()


def _on_clip(recording: Recording, vocabulary: Vocabulary, c: int, by: _Deciding) -> ClipResult:
    decided = _decide(recording, vocabulary, by)
    whole = np.array([not s.missing for s in decided])
    scores = np.stack([s.scores for s in decided])  # (T, C)
    others = np.delete(scores, c, axis=1)
    names = (*vocabulary.names[:c], *vocabulary.names[c + 1 :])
    nan = np.float32(np.nan)
    return ClipResult(
        name=recording.name,
        labels=tuple(s.label for s in decided),
        margin=np.where(whole, scores[:, c] - scores[:, -1], nan),
        lead=np.where(whole, scores[:, c] - others.max(axis=1), nan),
        rivals=tuple(names[i] for i in fused_labels(others)),
        vision_similarity=np.where(whole, np.stack([s.vision_similarity[c] for s in decided]), nan),
        audio_similarity=np.where(whole, np.stack([s.audio_similarity[c] for s in decided]), nan),
    )


def _sum_up(
    phrase: str, label: str, clips: Sequence[ClipResult], recordings: Sequence[Recording], *, in_vocabulary: bool
) -> Phrase:
    event = np.concatenate([recording.event for recording in recordings])
    won = np.array([said == label for clip in clips for said in clip.labels])
    rivals = [rival for clip in clips for rival in clip.rivals]

    def mean(field: str) -> float:
        return float(np.concatenate([getattr(clip, field) for clip in clips])[event].mean())

    hits, false_alarms = int((won & event).sum()), int((won & ~event).sum())
    return Phrase(
        phrase=phrase,
        label=label,
        rank=0,
        in_vocabulary=in_vocabulary,
        won_s=hits,
        event_s=int(event.sum()),
        elsewhere_s=false_alarms,
        f=2 * hits / (hits + int(event.sum()) + false_alarms),
        margin=mean("margin"),
        lead=mean("lead"),
        vision_similarity=mean("vision_similarity"),
        audio_similarity=mean("audio_similarity"),
        rival=Counter(np.array(rivals, object)[event].tolist()).most_common(1)[0][0],
        clips=tuple(clips),
    )


def rank(phrases: Sequence[Phrase]) -> tuple[Phrase, ...]:
    """Order by F score, then mean lead, then mean margin; ties share a rank."""

    def key(phrase: Phrase) -> tuple[int, ...]:
        return round(phrase.f / _TIE), round(phrase.lead / _TIE), round(phrase.margin / _TIE)

    ordered = sorted(phrases, key=key, reverse=True)
    keys = [key(phrase) for phrase in ordered]
    return tuple(replace(phrase, rank=keys.index(k) + 1) for phrase, k in zip(ordered, keys, strict=True))
