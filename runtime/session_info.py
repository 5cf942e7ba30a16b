"""What stays the same during a session: its id, the source, the names, the engine, the rules."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.manifest import Gate
from ovavel.runtime.economy.settings import EconomyPlan
from ovavel.runtime.pipeline.channels import Channel
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.types import Event, Sense

__all__ = ["SessionInfo", "new_id", "recording_id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """What stays the same while a session runs."""

    id: str
    """A UUID. For a recording read at full speed it is derived from the content and from everything that affects the
    decisions, so that another run has the same one (version 8); for a live source it is new and sorts by time
    (version 7)."""
    started_at: datetime
    """Wall clock when the session was ready, in UTC."""
    source: str
    senses: frozenset[Sense]
    """What the source delivers, and was asked to deliver."""
    live: bool
    labels: tuple[str, ...]
    """Class names, background last."""
    vocabulary_version: str
    model: str
    """Name of the model in the bundle, e.g. "imagebind-huge"."""
    licence: str
    """Licence of the model's weights."""
    bundle_sha256: str
    backend: BackendInfo
    gate: Gate | None
    """The comparison with PyTorch that verifies the backend; None: there is none."""
    gate_checked_here: bool = True
    """Whether this machine made the comparison; False if only the bundle records it."""
    lag: int
    """How many later segments make a score final."""
    fusion: str
    """Name of the rule that decides, `Rule.name`."""
    channel: Channel
    """The channel of the sound to listen to, as requested."""
    rules: EventRules
    """When an event begins and ends, with the margins in force where none were given."""
    economy: EconomyPlan = field(default_factory=EconomyPlan)
    """What is left out where nothing happens."""

    def event_id(self, event: Event) -> str:
        """The id of `event` among those of all sessions: the session's own, and the event's number in it."""
        return f"{self.id}-{event.id}"


def new_id() -> str:
    """A UUID of version 7: milliseconds of the wall clock, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    return _uuid(7, milliseconds << 80 | secrets.randbits(80))


def recording_id(facts: Sequence[object]) -> str:
    """A UUID of version 8 that is a hash of the JSON of `facts`: the content, and everything that affects decisions."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=True).encode()).digest()
    return _uuid(8, int.from_bytes(digest[:16], "big"))


def _uuid(version: int, bits: int) -> str:
    """The UUID of `bits`, except for the version and variant bits (RFC 9562)."""
    bits = bits & ~(0xF << 76) | version << 76
    return str(uuid.UUID(int=bits & ~(0b11 << 62) | 0b10 << 62))
