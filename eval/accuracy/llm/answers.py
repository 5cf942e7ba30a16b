"""Raw answers on disk, one a line, so that none is asked for twice and every figure can be looked into.

A line holds what was answered and by whom. Its key is a hash of the question, the clip's media, the model and the
server: the same question about the same media is answered from here. A line is written in one piece as soon as the
answer is there; what a killed process left of one is removed when the file is opened again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Self

import msgspec

from ovavel.eval.accuracy.llm.prompt import Question
from ovavel.runtime.errors import InputError
from ovavel.runtime.sinks.as_json import to_json_bytes
from ovavel.runtime.system.files import not_regular, output_error
from ovavel.runtime.system.untrusted import read_json

__all__ = ["Answer", "AnswerFile", "answer_key"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, or refusal, as it is stored."""

    key: str
    """See `answer_key`."""
    clip: str
    """Split, class and name; of the probe, what was shown."""
    question: Question
    text: str
    """What the model said, as it came; of a refusal, what the server said."""
    status: int
    """Of HTTP: 200, or that of a refusal, which is asked again by the next run."""
    server: str
    """Address, without secrets."""
    model: str
    """Which was asked."""
    answered_as: str | None
    """Which the server says has answered."""
    prompt_sha256: str
    media_sha256: str
    with_schema: bool
    """Whether the answer was asked for by a JSON schema."""
    finish: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float


def answer_key(*, server: str, model: str, prompt: str, clip: str, media: str) -> str:
    """Return the hash under which an answer is found; `prompt` and `media` are hashes, too."""
    return hashlib.sha256(to_json_bytes([server, model, prompt, clip, media])).hexdigest()


class AnswerFile:
    """A file of answers. A context manager; only one process writes to it at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, and read what it holds.

        Raises:
            InputError: another process uses it, or it is not a regular file.
            OutputError: it cannot be written.
        """
        self.path = path
        self.unreadable = 0
        """Lines that are no answers: they stay, and are asked again."""
        self.torn = False
        """Whether the last line was incomplete, and removed."""
        self._answers: dict[str, Answer] = {}
        try:
            if path.exists() and (why := not_regular(path)):
                raise InputError(f"{path} {why}; it has to be a file for answers: give another --out")
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise output_error(path, error) from error
        try:
            self._lock()
            self._read()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise output_error(self.path, error) from error
        finally:
            os.close(self._fd)

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def damage(self) -> str:
        """What was wrong with the file, in words; empty if nothing was."""
        parts = ["an incomplete line at its end was removed"] if self.torn else []
        if self.unreadable:
            parts.append(f"{self.unreadable} lines are no answers and were skipped")
        return "; ".join(parts)

    def get(self, key: str) -> Answer | None:
        """Return the answer with this key; refusals are none."""
        return self._answers.get(key)

    def add(self, answer: Answer) -> None:
        """Write `answer` to the file.

        Raises:
            OutputError: it cannot be written; nothing of it is left in the file.
        """
        rest = to_json_bytes(answer) + b"\n"
        try:
            before = os.fstat(self._fd).st_size
            try:
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
            except OSError:  # the disk is full
                os.ftruncate(self._fd, before)
                raise
        except OSError as error:
            raise output_error(self.path, error) from error
        if answer.status == 200:
            self._answers[answer.key] = answer

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process is writing to {self.path}; wait for its end, or give another --out"
            ) from None

    def _read(self) -> None:
        end = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    self.torn = True
                    break
                end += len(line)
                try:
                    answer = read_json(line, Answer)
                except ValueError:
                    self.unreadable += 1
                    continue
                if answer.status == 200:
                    self._answers[answer.key] = answer
        if self.torn:
            try:
                os.ftruncate(self._fd, end)
            except OSError as error:
                raise output_error(self.path, error) from error
