"""Keeps the last minutes of one camera and cuts clips out of them, in its capture process."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.sources.packet_tap import PacketTap
from ovavel.runtime.types import Chunk, Frame, Samples
from ovavel.service.capture.clip_file import write_clip
from ovavel.service.capture.messages import Clip, Cut, Recording
from ovavel.service.capture.pictures import FrameEncoder, PacketCopier, can_be_copied
from ovavel.service.capture.ring import Cutting, Ring
from ovavel.service.capture.sound import SoundEncoder

__all__ = ["NOT_KEPT", "Recorder"]

NOT_KEPT = "nothing of it was kept in memory"
"""Cause of a clip that cannot be cut."""
FORMAT_CHANGED = "the format of the pictures changed; this is the longest part of one format"
TOO_LARGE = "a group of pictures is larger than clip.ring_mb"
_LATER_S = 1.0
"""By then, frames that waited to be encoded are."""


class Recorder:
    """Takes what one source brings, and answers requests for clips, in a thread of its own."""

    def __init__(self, recording: Recording, answer: Callable[[Clip], None], *, microphone: bool = False) -> None:
        """Keep what `recording` says; `answer` is called with each clip that was asked for, written or not.

        `microphone` says whether the sound comes from one.
        """
        self._recording, self._answer = recording, answer
        self._ring = Ring(limit_bytes=recording.ring_bytes, limit_s=recording.ring_s)
        self._lock = threading.Lock()
        self._frames = FrameEncoder(self._ring, self._lock)
        self._sounds = SoundEncoder(microphone=microphone)
        self._lost = 0  # frames that no clip so far said were missing
        self._copying = 0  # connections whose packets are kept as they are
        self._wanted: list[Cut] = []
        self._position_s, self._ended = 0.0, False
        self._ready: queue.Queue[tuple[Cut, Cutting | None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._write, name="ovavel-clips", daemon=True)
        self._thread.start()

    def tap(self, stream: Any, shift_s: float = 0.0) -> PacketTap | None:
        """Keep the packets of `stream`, whose media time is `shift_s` later in this recording; an `OpenTap`."""
        if self._recording.encode or not can_be_copied(stream):
            return None
        with self._lock:
            self._copying += 1
        return _Shifted(PacketCopier(self._ring, self._lock, stream, self._copied), shift_s)

    def _copied(self) -> None:
        with self._lock:
            self._copying -= 1

    def chunk(self, chunk: Chunk) -> None:
        """Take what the source yields."""
        if isinstance(chunk, Samples) and self._recording.sound:
            for sound in self._sounds.push(chunk):
                with self._lock:
                    self._ring.sound(sound)
        elif isinstance(chunk, Frame) and not self._copying:
            self._frames.push(chunk.image, chunk.time_s)

    def cut(self, cut: Cut) -> None:
        """Write this clip as soon as the media has passed its end."""
        with self._lock:
            self._wanted.append(cut)
        self._cut_what_is_due()

    def reached(self, position_s: float, *, ended: bool = False) -> None:
        """The media has passed `position_s`, or ended."""
        if ended:
            self._frames.close()
        with self._lock:
            self._position_s, self._ended = position_s, ended
        self._cut_what_is_due()

    def close(self) -> None:
        """Write what was asked for, and end."""
        self.reached(self._position_s, ended=True)
        self._ready.put(None)
        self._thread.join()

    def _cut_what_is_due(self) -> None:
        with self._lock:
            due = [each for each in self._wanted if self._ended or each.to_s + _LATER_S <= self._position_s]
            self._wanted = [each for each in self._wanted if each not in due]
            for each in due:
                self._ready.put((each, self._ring.cut(each.from_s, each.to_s)))

    def _write(self) -> None:
        while (job := self._ready.get()) is not None:
            self._answer(self._written(*job))

    def _written(self, cut: Cut, cutting: Cutting | None) -> Clip:
        import av

        if cutting is None:
            return Clip(
                event=cut.event, error=self._frames.failure or (TOO_LARGE if self._ring.too_large else NOT_KEPT)
            )
        path = Path(cut.path)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
            write_clip(path, cutting, self._sounds.format)
            size, digest = _synced(path)
        except (OSError, av.FFmpegError, ValueError, MemoryError) as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return Clip(event=cut.event, error=redacted(getattr(error, "strerror", None) or str(error)))
        return Clip(
            event=cut.event,
            bytes=size,
            sha256=digest,
            start_s=cutting.start_s,
            end_s=cutting.end_s,
            has_audio=bool(cutting.sounds),
            codec=cutting.codec,
            note=self._note(cutting),
        )

    def _note(self, cutting: Cutting) -> str:
        missing, self._lost = self._frames.lost - self._lost, self._frames.lost
        notes = [FORMAT_CHANGED] if cutting.changed else []
        if missing:
            notes.append(f"{missing} pictures since the clip before could not be encoded in time")
        return "; ".join(notes)


class _Shifted:
    """A tap of one of several sources that are played one after the other."""

    def __init__(self, copier: PacketCopier, shift_s: float) -> None:
        self.packet, self.close = copier.packet, copier.close
        self._copier, self._shift_s = copier, shift_s

    def placed(self, offset_s: float) -> None:
        self._copier.placed(offset_s + self._shift_s)


def _synced(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file that is on disk now."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        os.fsync(file.fileno())
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()
