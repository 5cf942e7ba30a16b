"""What a run over many recordings is asked to do: plain values that every process and machine gets."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import msgspec

from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.channels import Channel
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.reporting.text import encodable

__all__ = ["Job", "Recording", "Request", "Shard", "device_on_slot", "gpus_for", "recordings_below"]

_ANY_GPU = ("onnxruntime", "tensorrt", "tensorrt-rtx", "torch")
"""Backends that take any NVIDIA GPU for --device auto."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recording to localize."""

    file: str
    """As the user named it; results name it so."""
    path: str
    """The same, absolute; of an object, its name."""
    name: str
    """Below the folder in which all recordings lie, with "/" between folders; its results lie at the same place."""
    store: str | None = None
    """Of an object: URL of what all recordings lie below."""


def recordings_below(files: Sequence[Path], base: Path) -> list[Recording]:
    """The recordings `files`, all of them below `base`, which is absolute and resolved."""
    found = []
    for file in files:
        path = file.parent.resolve() / file.name
        found.append(Recording(file=str(file), path=str(path), name=path.relative_to(base).as_posix()))
    return found


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of the recordings. A recording's name decides its part, whatever else there is."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "2/8". Shards count from 0 or from 1, as schedulers do: 8/8 is 0/8.

        Raises:
            UsageError: it is no shard.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        index, count = (int(found[1]), int(found[2])) if found else (1, 0)
        if index > count:
            raise UsageError(f"--shard takes i/n with i from 0 or 1 up to n, such as 2/8, not {text!r}")
        if count == 0:
            raise UsageError("--shard 0/0 has no recordings; n is at least 1")
        return cls(index % count, count)

    def holds(self, recording: Recording) -> bool:
        """Whether the recording is in this part."""
        digest = hashlib.sha256(os.fsencode(recording.name)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What results depend on, as it was asked for. Only results of equal requests may lie in one folder."""

    bundle_sha256: str
    backend: str
    precision: str | None
    senses: tuple[str, ...]
    channel: str
    lag: int
    fusion: str | None
    rules: dict[str, float | None]
    economy: tuple[str, float | None]
    formats: tuple[str, ...]

    def differences(self, other: Request) -> list[str]:
        """What is another value in `other`, in words."""
        return [
            name.removesuffix("_sha256").replace("_", " ")
            for name in self.__struct_fields__
            if getattr(self, name) != getattr(other, name)
        ]


def gpus_for(device: str, backend: str) -> bool | None:
    """Whether --device and --backend need a GPU; None: they take one if there is one."""
    return None if device == "auto" and backend in _ANY_GPU else device == "cuda"


def device_on_slot(device: str, *, gpu: bool) -> str:
    """What --device means on a slot: the machine alone would not know which GPUs are another slot's."""
    return ("cuda" if gpu else "cpu") if device == "auto" else device


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to do with each recording."""

    bundle: str
    """Folder of the bundle, absolute."""
    bundle_sha256: str
    out: str
    """Folder for results, absolute, or a URL of object storage."""
    formats: tuple[str, ...]
    engine: Mapping[str, Any]
    """Keyword arguments of `open_verified`."""
    require_signature: str | None = None
    video: bool = True
    audio: bool = True
    max_pixels: int | None = None
    channel: Channel = "auto"
    lag: int
    fusion: str | None = None
    rules: EventRules
    economy: Economy = field(default_factory=Economy)
    overwrite: bool = False
    """Replace what was done before, whatever was asked then."""

    @property
    def threads(self) -> int | None:
        """Threads of the encoders, if their number was given."""
        threads: int | None = self.engine["threads"]
        return threads

    @property
    def gpus(self) -> bool | None:
        """Whether the encoders need a GPU; None: they take one if there is one."""
        return gpus_for(self.engine["device"], self.engine["name"])

    def on_slot(self, threads: int, *, gpu: bool) -> Job:
        """The same on a slot of so many cores."""
        device = device_on_slot(self.engine["device"], gpu=gpu)
        return replace(self, engine={**self.engine, "threads": threads, "device": device})

    @property
    def request(self) -> Request:
        """What the results depend on. Neither device nor threads: they may vary from machine to machine."""
        return Request(
            bundle_sha256=self.bundle_sha256,
            backend=self.engine["name"],
            precision=self.engine["precision"],
            senses=tuple(sense for sense, on in (("audio", self.audio), ("vision", self.video)) if on),
            channel=str(self.channel),
            lag=self.lag,
            fusion=None if self.fusion is None else encodable(self.fusion),
            rules=asdict(self.rules),
            economy=(self.economy.mode, self.economy.budget if self.economy.mode == "auto" else None),
            formats=tuple(sorted(set(self.formats))),
        )
