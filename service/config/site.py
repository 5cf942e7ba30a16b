"""What a site file may say. Every field does something; an unknown one is an error."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from ovavel.runtime.economy.settings import BUDGET
from ovavel.runtime.types import BUFFER, LAG, EconomyMode
from ovavel.service.config.sinks import Name, Seconds, Sink

__all__ = ["Camera", "Clips", "Keep", "Site"]

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Roll: TypeAlias = Annotated[float, Meta(ge=0, le=300)]
Days: TypeAlias = Annotated[float, Meta(gt=0, le=36_500)]
Gigabytes: TypeAlias = Annotated[float, Meta(ge=0, le=1_000_000)]
Budget: TypeAlias = Annotated[float, Meta(gt=0, le=1)]
Corner: TypeAlias = tuple[Share, Share]
"""x and y, from the top left corner of the picture (0, 0) to the bottom right one (1, 1)."""
Mask: TypeAlias = Annotated[tuple[Corner, ...], Meta(min_length=3, max_length=256)]
"""Corners of a polygon."""


class Clips(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is in a clip, and how much is kept in memory to cut it from."""

    pre_s: Roll = 5.0
    """Seconds before the event."""
    post_s: Roll = 5.0
    """Seconds after it."""
    ring_s: Annotated[float, Meta(ge=10, le=3600)] = 120.0
    """Seconds of each camera that are kept in memory: of a longer event, the clip shows the end."""
    ring_mb: Annotated[int, Meta(ge=1, le=16_384)] = 64
    """Megabytes of each camera that are kept in memory at most."""


class Keep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For how long, and in how much space. What is pinned stays."""

    events_days: Days = 365
    snapshots_days: Days = 90
    """Of pictures and spectrograms."""
    snapshots_gb: Gigabytes = 2
    clips_days: Days = 14
    clips_gb: Gigabytes = 20
    archive_days: Days = 30
    """Of the archive, which has what each second looked and sounded like, as numbers, for `ovavel search`."""
    archive_gb: Gigabytes = 20
    """0: no archive. A day of a camera takes about 180 MB with ImageBind."""
    min_free_gb: Gigabytes = 1
    """Space that stays free on the disk: for it, the oldest clips go first, then the oldest snapshots."""


class Camera(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One camera with its sound."""

    id: Name
    """Names it in addresses, topics and files; its history hangs on it."""
    source: Annotated[str, Meta(min_length=1, max_length=4096)]
    """Address or file, or a camera of this machine: its index or device file. "@FILE" reads it from the first line of a
    file, "env:NAME" from a variable: an address with a password does not belong into the site file."""
    microphone: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """Index, name or part of the name of a microphone of this machine, or "default": for a camera of this machine,
    which has no sound of its own, or in place of the sound of an address."""
    name: Annotated[str, Meta(max_length=200)] = ""
    """What people call it; the id by default."""
    tz: str = ""
    """IANA time zone in which its times are shown; the site's by default."""
    loop: bool = False
    """Play a file again from its start when it ends, as a camera that is always there."""
    expected_offline: bool = False
    """It may be switched off at any time: sinks do not hear that it is down."""
    start_margin: Share | None = None
    """Margin over the background that a second needs to begin an event; by default the bundle's own."""
    keep_margin: Share | None = None
    """Margin that later seconds need to continue it; by default the bundle's own."""
    min_duration_s: Seconds = 1.0
    """Shorter events are dropped."""
    bridge_s: Seconds = 1.0
    """A pause up to this long inside an event does not end it."""
    every_s: Annotated[int, Meta(ge=1, le=10)] = 1
    """Look at one second in so many. The others are counted as not looked at; where the encoder is too slow for all
    cameras, this says which seconds are missing, and it costs an event at most that much of its length."""
    lag: Annotated[int, Meta(ge=0, le=BUFFER - 1)] = LAG
    """Seconds of later context after which a decision is final."""
    economy: EconomyMode | None = None
    """Which pictures are left out, as for the site; the site's by default."""
    economy_budget: Budget | None = None
    """As for the site; the site's by default."""
    mask: Annotated[tuple[Mask, ...], Meta(max_length=64)] = ()
    """Polygons that are black before anything looks at a picture. A network camera with a mask has clips only with
    `transcode` or a microphone: its own packets show what is masked."""
    transcode: bool = False
    """Encode clips to H.264 even where the camera's own packets could be copied: for masks, and for HEVC, which many
    browsers do not play. A camera of this machine, or one with a microphone, has no packets to copy: its clips are
    always encoded."""
    sound: bool = True
    """Whether sound is read at all; without it a microphone is not even opened. Then nothing is both seen and heard:
    the camera is shown and accounted for, and has no events."""
    keep_sound: bool = True
    """Whether sound is kept. Without it, it is heard in memory for decisions, and is in no clip and no picture."""
    media: bool = True
    """Whether pictures, sound and clips of events are kept; without it, their times and names alone."""


class Site(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place under watch."""

    bundle: Annotated[str, Meta(min_length=1)]
    """Folder written by `ovavel bundle export`."""
    data: Annotated[str, Meta(min_length=1)]
    """Folder of the store, on a local disk."""
    camera: Annotated[tuple[Camera, ...], Meta(min_length=1, max_length=1024)]
    """One `[[camera]]` table each."""
    sink: Annotated[tuple[Sink, ...], Meta(max_length=64)] = ()
    """One `[[sink]]` table for each that hears of events outside."""
    name: Name = "site"
    """What the page calls it."""
    tz: str = "UTC"
    """IANA time zone in which times are shown."""
    media: bool = True
    """Whether pictures, sound and clips of events are kept, of any camera."""
    clip: Clips = Clips()
    """What clips show."""
    keep: Keep = Keep()
    """For how long."""
    listen: Annotated[str, Meta(pattern=r"^(\[[0-9A-Fa-f:]+\]|[0-9A-Za-z.-]+):[0-9]{1,5}\Z")] = "127.0.0.1:8470"
    """Address and port of the page; port 0 is any that is free. One that others can reach needs a user or a token."""
    token_file: str | None = None
    """File whose first line is a token with which everything may be done, as "Authorization: Bearer TOKEN"."""
    log: Literal["text", "json"] = "text"
    """How the log is written to standard error."""
    base_path: Annotated[str, Meta(pattern=r"^(/[A-Za-z0-9._~-]+)*\Z", max_length=200)] = ""
    """Path under which a proxy shows the page, such as "/cameras"; whether the proxy removes it does not matter."""
    proxies: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    """Addresses or networks of proxies, whose headers X-Forwarded-For and X-Forwarded-Proto are believed."""
    device: str = "auto"
    """Where the encoders run: cpu, cuda, cuda:N, or auto; for the backend triton, the address of the server."""
    backend: str = "onnxruntime"
    """What runs the bundle."""
    precision: str | None = None
    """Of vision and audio; the bundle's own choice by default."""
    capacity: Literal["warn", "refuse"] = "warn"
    """What to do where the encoder cannot keep up with the cameras: log a warning, or do not start."""
    economy: EconomyMode = "exact"
    """off: every picture is encoded. exact: not those of seconds that are background by their sound alone, where that
    is proven to decide the same; an archive needs every picture. auto: also not those that hardly change a decision,
    which 'ovavel eval economy --write' has to have compared."""
    economy_budget: Budget = BUDGET
    """For auto: how far the embedding of a picture or sound that is not encoded again may drift, as 1 - cosine at the
    99th percentile."""
    threads: Annotated[int, Meta(ge=1, le=4096)] | None = None
    """Threads of the encoders on a CPU; as many as cores by default."""
