"""The values that travel along the pipeline, each a frozen dataclass.

    Source ─chunks─▶ WindowAssembler ─Window─▶ Encoder ─Segment─▶ Localizer ─SegmentScores─▶ EventTracker ─Event─▶ Sink

Shapes: H, W frame height and width; n samples in a block; D embedding size; C named classes, so C + 1 with the
background, which is always last. Times whose name ends in `_s` are seconds of *media time* (0 at the start of the
source) unless the docstring says otherwise; `captured_s` is `time.monotonic()`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "BUFFER",
    "LAG",
    "RATE_HZ",
    "WINDOW_S",
    "Chunk",
    "DropCause",
    "EconomyMode",
    "Event",
    "EventState",
    "Frame",
    "FusionKind",
    "Gap",
    "GapCause",
    "Notice",
    "RuleKind",
    "Samples",
    "Segment",
    "SegmentScores",
    "Sense",
    "SkipCause",
    "Update",
    "Window",
]

RATE_HZ = 16_000
"""Sample rate of `Window.waveform` where nobody asks for another one; a bundle whose audio encoder does names it."""

WINDOW_S = 1.0
"""Length of a window, and so of a segment."""

BUFFER = 10
"""Segments that the temporal head sees at once: the length of the clips it was trained on."""

LAG = 2
"""Default lag of live use and recordings: how many later segments make a decision final. Chosen by measurement
(docs/streaming.md): waiting longer delays decisions and hardly improves them. The only place to set it."""

Sense = Literal["vision", "audio"]
EventState = Literal["start", "update", "end", "retract"]

FusionKind: TypeAlias = Literal["positive", "published", "learned"]
"""How two similarities become a score: `positive_score` or `fused_score` in `fusion.py`, or learned by the head's
graph."""

RuleKind: TypeAlias = Literal[
    "published", "positive", "learned", "agreement", "av2a", "cuerator", "temperatures", "clip-prior"
]
"""Decision rules: the fused scores, and what decides in their place (docs/method.md, Decision rules)."""


EconomyMode: TypeAlias = Literal["off", "exact", "auto"]
"""How much is left out where nothing happens (docs/economy.md): nothing, what cannot change a decision, or what hardly
changes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One video frame as a source delivers it."""

    time_s: float
    """Media time at which it is shown."""
    captured_s: float
    """Monotonic clock when it arrived."""
    image: Callable[[], NDArray[np.uint8]]
    """Converts to (H, W, 3) uint8 RGB. Called at most once, and only for the one frame that a window keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A block of sound as a source delivers it, at the source's own rate."""

    time_s: float
    """Media time of the first sample."""
    captured_s: float
    """Monotonic clock when the last sample arrived."""
    waveform: NDArray[np.float32]
    """(channels, n) float32 in [-1, 1]."""
    rate_hz: int


class GapCause(StrEnum):
    """Why something was not seen or not heard. Counters group by it, and files contain exactly these values."""

    # a device or a stream
    CAMERA_LOST = "camera lost"
    MICROPHONE_LOST = "microphone lost"
    MICROPHONE_OVERFLOW = "microphone overflow"
    STREAM_LOST = "stream lost"
    PROCESS_NOT_RUNNING = "process not running"
    # a recording
    NO_VIDEO = "no video"
    NO_AUDIO = "no audio"
    DAMAGED_VIDEO = "damaged video"
    DAMAGED_AUDIO = "damaged audio"
    TIMESTAMP_JUMP = "timestamp jump"
    TRUNCATED = "truncated"
    # the assembler
    NO_FRAME = "no frame"
    NO_SOUND_YET = "no sound yet"
    NO_SUCH_CHANNEL = "no such channel"
    LATE_VIDEO = "late video"
    LATE_SOUND = "late sound"
    LOST_SAMPLES = "lost samples"
    INVALID_SAMPLES = "invalid samples"
    INVALID_TIME = "invalid time"
    CLOCK_DRIFT = "clock drift"
    END_OF_MEDIA = "end of media"
    # the queue: the whole window was dropped
    ENCODER_TOO_SLOW = "encoder too slow"
    """Encoding took the time."""
    READER_TOO_SLOW = "reader too slow"
    """The consumer of the updates took the time: a pipe that is read slowly, or a slow program."""


class DropCause(StrEnum):
    """Why a sample, a frame or a window was dropped without a gap; all other causes are those of `GapCause`."""

    BEFORE_THE_START = "before the start"
    OVERLAPPING_SAMPLES = "overlapping samples"
    NOT_NEEDED = "not needed"
    """A window shows one frame."""
    BACKEND_FAILED = "backend failed"
    NOT_LOOKED_AT = "not looked at"
    """One window in several is encoded, by choice."""
    STOPPED = "stopped"


class SkipCause(StrEnum):
    """Why a second was decided without its picture, by choice: it is background whatever the picture shows."""

    NO_SOUND = "no sound"
    """Nothing was heard, so nothing can be both seen and heard."""
    SOUND = "background sound"
    WEAK_SOUND = "weak sound"
    """No class is heard well enough for anything that this camera has shown so far."""
    NOTHING_TO_HEAR = "nothing to hear"
    """The sound does not stand out of the noise of the microphone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that should have been seen or heard and was not. It is counted, never hidden."""

    sense: Sense
    cause: GapCause
    start_s: float
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One sentence for people, e.g. "camera 0 is lost; trying to open it again". No decision depends on it."""

    time_s: float
    """Media time when it was made."""
    message: str


Chunk: TypeAlias = Frame | Samples | Gap | Notice
"""What a source yields. A `Gap` chunk also means that its sense delivers nothing else for that stretch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One aligned second of media: a still frame and one second of sound."""

    index: int
    """`start_s` divided by the window length; counts from 0 without gaps in the numbering."""
    start_s: float
    frame: NDArray[np.uint8] | None
    """(H, W, 3) uint8 RGB, the frame nearest the middle of the second; None when nothing was seen."""
    waveform: NDArray[np.float32] | None
    """(channels, n) float32, a second at the rate that the audio encoder asks for (`sound_rate`), starting with the
    channel to listen to; None when nothing was heard. Lost stretches are silent and listed in `gaps`."""
    captured_s: float | None
    """Monotonic clock when its last sample or frame arrived; None when none did, although it may show a frame of an
    earlier second."""
    gaps: tuple[Gap, ...] = ()
    channel: int | None = None
    """Index in the source of the first channel in `waveform`; None for a mix, or where nothing was heard."""
    notices: tuple[Notice, ...] = ()
    """What the source reported since the previous window, in order."""
    dropped: GapCause | None = None
    """Why the queue emptied it; None for a window that reached the encoder as it was assembled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One second as the encoders see it."""

    index: int
    start_s: float
    vision: NDArray[np.float32] | None
    """(D,) float32, unit norm; None when nothing was seen, or it was not looked at."""
    audio: NDArray[np.float32] | None
    """(D,) float32, unit norm; None when nothing was heard."""
    frame: NDArray[np.float32] | None = None
    """Prepared picture that was not looked at so far (docs/economy.md); None once `vision` is there."""

    @property
    def missing(self) -> tuple[Sense, ...]:
        """The senses that are missing; an audio-visual event needs both. What was not looked at is not missing."""
        seen = self.frame if self.vision is None else self.vision
        senses: tuple[tuple[Sense, object], ...] = (("vision", seen), ("audio", self.audio))
        return tuple(sense for sense, content in senses if content is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentScores:
    """The decision on one second. The same second is scored again as its context arrives, until `final`."""

    index: int
    start_s: float
    label: str
    """Class of the highest score; the background where a sense is missing."""
    score: float
    """Score of `label`, in [0, 1]."""
    scores: NDArray[np.float32]
    """(C+1,) float32 scores of the rule in [0, 1], such as fused ones, min-max scaled over the classes
    (docs/method.md, Decision and Decision rules)."""
    vision_similarity: NDArray[np.float32]
    """(C+1,) float32 cosine similarities of what was seen; NaN where nothing was, or nobody looked."""
    audio_similarity: NDArray[np.float32]
    """(C+1,) float32 cosine similarities of what was heard; NaN where nothing was."""
    context: int
    """How many segments the temporal head saw for this decision; 0 where a sense is missing."""
    final: bool
    """True once as many later segments have arrived as the localizer's `lag` requires. Reported final exactly once."""
    missing: tuple[Sense, ...] = ()
    """The senses that were missing; if any, the second is background."""
    skipped: SkipCause | None = None
    """Why the picture was not looked at for this decision, which is background; None: it was, or there was none."""
    probability: float | None = None
    """Calibrated probability of `label`, in (0, 1]; None where the bundle is not calibrated for these names, or
    where a sense is missing or was not looked at."""
    rule: str = "published"
    """Name of the rule that decided, `Rule.name`."""

    @property
    def margin(self) -> float:
        """How far `label` is above the background, in [0, 1]; 0 for the background itself.

        The fused scores are min-max scaled, so the best class always scores (nearly) 1: the margin is what separates a
        clear event from a narrow one.
        """
        return max(0.0, self.score - float(self.scores[-1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """News of one audio-visual event. Every `start` is followed by exactly one `end` or `retract` of the same `id`."""

    id: int
    """Counts from 1 within a session; `SessionInfo.event_id` is unique beyond it."""
    label: str
    start_s: float
    end_s: float
    peak_score: float
    """Highest `SegmentScores.score` of its seconds."""
    peak_margin: float
    """Highest `SegmentScores.margin` of its seconds: it separates clear events from narrow ones."""
    state: EventState
    vocabulary_version: str
    """`Vocabulary.version` of the names in force when it was decided."""
    peak_probability: float | None = None
    """Highest `SegmentScores.probability` of its seconds; None where the bundle is not calibrated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Everything that one window brought, as a `Session` yields it and a sink receives it."""

    window: Window | None
    """The newest window; None in the last update, which only closes what was open."""
    segment: Segment | None = None
    """That window as the encoders see it; None where `window` is."""
    scores: tuple[SegmentScores, ...]
    """Every second whose scores were not final before, oldest first; the last one is the window's own."""
    events: tuple[Event, ...]
    """Event news, in the order to show it."""
    latency_ms: float | None
    """From `Window.captured_s` to the decision, on the wall clock; None where nothing new was captured or encoded, and
    for a file that is read at full speed."""
    notices: tuple[Notice, ...] = ()
    """What the source and the session reported up to this window, in order."""
