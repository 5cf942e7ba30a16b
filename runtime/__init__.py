"""The edge runtime: from camera and microphone to events, with NumPy and one backend, without PyTorch.

The names in `__all__` are the public API. They load on first use, so that `import ovavel.runtime` costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovavel.runtime.bundle.bundle import Bundle as Bundle
    from ovavel.runtime.bundle.vocabulary import Tokenizer as Tokenizer
    from ovavel.runtime.bundle.vocabulary import Vocabulary as Vocabulary
    from ovavel.runtime.errors import OvavelError as OvavelError
    from ovavel.runtime.pipeline.encoder import Encoder as Encoder
    from ovavel.runtime.pipeline.localizer import Localizer as Localizer
    from ovavel.runtime.pipeline.tracker import EventTracker as EventTracker
    from ovavel.runtime.session import Session as Session
    from ovavel.runtime.sources.camera_mic import CameraMicSource as CameraMicSource
    from ovavel.runtime.sources.media.source import MediaSource as MediaSource
    from ovavel.runtime.types import Event as Event
    from ovavel.runtime.types import Segment as Segment
    from ovavel.runtime.types import SegmentScores as SegmentScores
    from ovavel.runtime.types import Window as Window

# ONNX Runtime sends telemetry to its vendor unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOME = {
    "Bundle": "bundle.bundle",
    "CameraMicSource": "sources.camera_mic",
    "Encoder": "pipeline.encoder",
    "Event": "types",
    "EventTracker": "pipeline.tracker",
    "Localizer": "pipeline.localizer",
    "MediaSource": "sources.media.source",
    "OvavelError": "errors",
    "Segment": "types",
    "SegmentScores": "types",
    "Session": "session",
    "Tokenizer": "bundle.vocabulary",
    "Vocabulary": "bundle.vocabulary",
    "Window": "types",
}

__all__ = [
    "Bundle",
    "CameraMicSource",
    "Encoder",
    "Event",
    "EventTracker",
    "Localizer",
    "MediaSource",
    "OvavelError",
    "Segment",
    "SegmentScores",
    "Session",
    "Tokenizer",
    "Vocabulary",
    "Window",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
