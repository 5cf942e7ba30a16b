"""Options that several commands share, each with one name, one default and one wording.

A command holds the dataclasses below as fields, and their fields become its flags.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.system.bounds import MOST_WORKERS, Meta
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.types import EconomyMode

if TYPE_CHECKING:
    from ovavel.runtime.archive.sink import ArchiveSink
    from ovavel.runtime.archive.writer import ArchiveWriter
    from ovavel.runtime.backends import Backend
    from ovavel.runtime.bundle.bundle import Bundle
    from ovavel.runtime.economy.settings import Economy
    from ovavel.runtime.pipeline.channels import Channel
    from ovavel.runtime.pipeline.tracker import EventRules
    from ovavel.runtime.sources import Source
    from ovavel.runtime.sources.access import Access
    from ovavel.runtime.verification.open import Verified

__all__ = [
    "ArchiveOptions",
    "BackendsFlag",
    "ChannelFlag",
    "DeviceOptions",
    "EconomyOptions",
    "EngineOptions",
    "EventOptions",
    "LiveArchiveOptions",
    "Many",
    "Maybe",
    "VerifiedEngineOptions",
    "Where",
    "Workers",
    "backend_help",
    "check_bundle_backends",
    "parse_channel",
]

T = TypeVar("T")

_ARCHIVED_AT_ONCE = 600
"""Seconds of a recording that are committed to the archive together: one that is cut short is localized again."""

Maybe: TypeAlias = Annotated[T | None, arg(help_behavior_hint="")]
"""Type of an optional flag: its help explains the default instead of showing "(default: None)"."""

Many: TypeAlias = Annotated[tuple[T, ...], arg(help_behavior_hint="")]
"""Type of a flag that takes several values, and none by default."""

Where: TypeAlias = Annotated[
    Path | str,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH|URL",
        instance_from_str=lambda words: _where(words[0]),
        is_instance=lambda value: isinstance(value, Path | str),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""Type of a file or folder, or of a place in object storage: a `str` with "://" in it, not checked."""

Workers: TypeAlias = Maybe[Annotated[int, Meta(ge=1, le=MOST_WORKERS)]]
"""Processes; None: chosen by the number of cores."""


def _where(text: str) -> Path | str:
    """A path, or a URL; a URL of this machine's files is their path."""
    url = urlsplit(text) if text.startswith("file://") else None
    if url and url.netloc in ("", "localhost") and not (url.query or url.fragment):
        return Path(unquote(url.path))
    return text if "://" in text else Path(text)


def backend_help(which: str = "What runs the graphs", more: str = "") -> str:
    """Help of a flag that takes names of backends; `more` lists those that only its command can run."""
    return (
        f"{which}: onnxruntime, openvino, tensorrt, tensorrt-rtx, triton, {more}or another that is installed; "
        "'ovavel doctor' shows what this machine has."
    )


BackendsFlag = Annotated[tuple[str, ...], arg(help=backend_help("What runs the graphs, one row each"))]
"""Names of several backends."""

ChannelFlag = Annotated[
    str,
    arg(
        metavar="{auto,first,mix,N}",
        help="Channel of the sound to listen to: auto is the first one, unless it has been silent while another was "
        "not, then the loudest; mix is the mean of all; a number counts from 0.",
    ),
]
"""Type of the flag --channel; `parse_channel` reads it."""


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where something runs."""

    device: str = "auto"
    """Where the encoders run: cpu, cuda, cuda:N, or auto; for the backend triton, the address of the server,
    grpc://HOST:PORT. If the device is unavailable, the command fails."""
    threads: Maybe[Annotated[int, Meta(ge=1, le=MOST_WORKERS)]] = None
    """Threads of the encoders on a CPU; as many as cores by default."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions(DeviceOptions):
    """What runs a bundle, and where."""

    backend: Annotated[str, arg(help=backend_help())] = "onnxruntime"
    precision: Maybe[str] = None
    """Precision of vision and audio, e.g. fp32, fp16 or int8, if the bundle has it; by default the bundle's choice."""
    require_signature: Annotated[str | None, arg(metavar="KEY", help_behavior_hint="")] = None
    """Refuse the bundle unless its manifest.json.minisig is a signature by this minisign public key, or by the key in
    this file."""

    def check(self) -> None:
        """Refuse a backend that cannot run a bundle, before a camera or a file is opened. Raises UsageError."""
        check_bundle_backends(self.backend)

    def open_bundle(self, path: Path) -> Bundle:
        """Open the bundle at `path`, and require the signature if one was asked for.

        Raises:
            UsageError: see `check`.
            BundleError: it is incomplete, altered, of another version, or not signed as required.
        """
        from ovavel.runtime.bundle.bundle import Bundle

        self.check()
        return Bundle.open(path, signed_by=self.require_signature)

    @property
    def backend_options(self) -> dict[str, Any]:
        """Keyword arguments of `open_backend`."""
        return {"name": self.backend, "device": self.device, "threads": self.threads, "precision": self.precision}


@dataclass(frozen=True, kw_only=True)
class VerifiedEngineOptions(EngineOptions):
    """What runs a bundle to make decisions: it has to be verified against PyTorch."""

    allow_unverified: bool = False
    """Continue with an engine that has not been verified against PyTorch, or that disagrees with it."""

    def open(self, bundle: Bundle, progress: Progress = no_progress) -> Verified:
        """Open the backend and look up its gate; the caller closes it.

        Raises:
            UnverifiedError: it has not been verified against PyTorch, and `allow_unverified` is False.
            OvavelError: it cannot be opened; see `open_backend`.
        """
        from ovavel.runtime.verification.open import open_verified

        return open_verified(bundle, allow_unverified=self.allow_unverified, progress=progress, **self.backend_options)


@dataclass(frozen=True, kw_only=True)
class EventOptions:
    """When an event begins and ends; see `EventRules`."""

    start_margin: Maybe[Annotated[float, Meta(ge=0, le=1)]] = None
    """Margin over the background, in [0, 1], that a second needs to begin an event; by default the bundle's own if it
    is calibrated, else 0."""
    keep_margin: Maybe[Annotated[float, Meta(ge=0, le=1)]] = None
    """Margin that later seconds need to continue it, at most --start-margin. By default the bundle's own if it is
    calibrated, else 0."""
    min_duration_s: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    """Drop events that are shorter."""
    bridge_s: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    """Longest pause inside an event that does not end it."""

    @property
    def rules(self) -> EventRules:
        """The rules as given.

        Raises:
            UsageError: they contradict each other.
        """
        from ovavel.runtime.pipeline.tracker import EventRules

        return EventRules(
            start_margin=self.start_margin,
            keep_margin=self.keep_margin,
            min_duration_s=self.min_duration_s,
            bridge_s=self.bridge_s,
        )


@dataclass(frozen=True, kw_only=True)
class EconomyOptions:
    """What is left out where nothing happens."""

    economy: EconomyMode = "exact"
    """Leave out work where nothing happens. off: look at every picture. exact: not at pictures that cannot change the
    decision, as the sound is background. auto: also not at pictures that hardly change it; needs a comparison by
    'ovavel eval economy --write'."""
    economy_budget: Annotated[float, Meta(gt=0, le=1)] = 0.002
    """For auto: how far the embedding of a picture that is not encoded again may drift, as 1 - cosine at the 99th
    percentile."""

    def settings(self, bundle: Bundle, fusion: str | None, *, every_picture: str = "") -> Economy:
        """What a session with `bundle` is asked for, which decides by `fusion` or the bundle's own rule.

        `every_picture` says what needs the embedding of every picture, if something does.

        Raises:
            UnverifiedError: "auto" has not passed its comparison.
            UsageError: the rule cannot run with this bundle.
        """
        from ovavel.runtime.economy.settings import Economy
        from ovavel.runtime.verification.economy import require_economy_gate

        economy = Economy(mode=self.economy, budget=self.economy_budget, every_picture=every_picture)
        require_economy_gate(bundle, economy, fusion)
        return economy


@dataclass(frozen=True, kw_only=True)
class ArchiveOptions:
    """Where recordings are archived, and under which camera and time."""

    archive: Maybe[Path] = None
    """Archive folder: what the encoders and the head make of each second is kept there, for 'ovavel search' and 'ovavel
    relabel'."""
    camera: Maybe[str] = None
    """Camera in the archive that took the recordings; by default each is filed under its own file name."""
    start: Maybe[str] = None
    """When the recording began, such as 2026-11-29T14:30; in this machine's time zone unless it has an offset. By
    default the creation time in the file."""

    def check(self, recordings: int) -> None:
        """Refuse options that make no sense for so many recordings. Raises UsageError."""
        if self.archive is None and (self.camera or self.start):
            raise UsageError("--camera and --start are for --archive: name its folder, or leave them out")
        if self.start and recordings > 1:
            raise UsageError(f"--start is for one recording, not for {recordings}; archive them one by one")

    def sink(self, file: Path, bundle: Bundle, backend: Backend, lag: int, access: Access) -> ArchiveSink | None:
        """What archives `file`, to be closed by the caller; None without an archive.

        Raises:
            MediaError: nobody says when the recording began.
            UsageError, OutputError: the camera or the folder cannot be used.
        """
        if self.archive is None:
            return None
        from ovavel.runtime.archive.layout import model_of
        from ovavel.runtime.archive.sink import ArchiveSink
        from ovavel.runtime.archive.times import parse_time
        from ovavel.runtime.archive.writer import ArchiveWriter
        from ovavel.runtime.bundle.precision import is_pooled
        from ovavel.runtime.sources.creation import creation_time

        start = parse_time(self.start, "--start") if self.start else creation_time(file, access)
        if start is None:
            raise MediaError(f"{file} does not say when it was recorded, and the archive needs that: give --start")
        model = model_of(bundle, pooled=is_pooled(backend.info.precision))
        writer = ArchiveWriter(self.archive, self.camera or file.stem, model, every=_ARCHIVED_AT_ONCE)
        return ArchiveSink(writer, backend, lag=lag, start=start)


@dataclass(frozen=True, kw_only=True)
class LiveArchiveOptions:
    """Where a live source is archived, and under which camera."""

    archive: Maybe[Path] = None
    """Archive folder: what the encoders and the head make of each second is kept there, for 'ovavel search' and 'ovavel
    relabel'. The time is that of this machine."""
    archive_camera: Maybe[str] = None
    """Name of the camera in the archive."""

    def check(self, source: Source) -> None:
        """Refuse options that make no sense, or not for `source`. Raises UsageError."""
        if (self.archive is None) != (self.archive_camera is None):
            raise UsageError("--archive and --archive-camera go together: give the folder and the camera's name")
        if self.archive and not source.live:
            raise UsageError("--archive files what is seen now; for a recording use 'ovavel localize --archive'")

    def writer(self, bundle: Bundle, backend: Backend) -> ArchiveWriter | None:
        """What writes the seconds that `backend` encodes; None without an archive.

        Raises:
            UsageError: the camera's name cannot be used.
            OutputError: the folder cannot be used.
        """
        if self.archive is None or self.archive_camera is None:
            return None
        from ovavel.runtime.archive.layout import model_of
        from ovavel.runtime.archive.writer import ArchiveWriter
        from ovavel.runtime.bundle.precision import is_pooled

        model = model_of(bundle, pooled=is_pooled(backend.info.precision))
        return ArchiveWriter(self.archive, self.archive_camera, model)


def check_bundle_backends(*names: str) -> None:
    """Refuse backends that cannot run a bundle's own graphs, before a camera or a file is opened.

    Raises:
        UsageError: one is PyTorch, which runs the checkpoints behind a bundle, or is not known.
    """
    from ovavel.runtime.backends import backend_names

    for name in names:
        if name == "torch":
            raise UsageError(
                "--backend torch cannot run a bundle: PyTorch runs the checkpoint that it was made from. Leave it out, "
                "or compare with it: give --weights to 'ovavel eval parity' or 'ovavel bench run'"
            )
        if name not in backend_names():
            raise UsageError(f"there is no backend {name!r}; known: {', '.join(backend_names()) or 'none'}")


def parse_channel(text: str) -> Channel:
    """Read the value of --channel.

    Raises:
        UsageError: it is invalid.
    """
    from ovavel.runtime.pipeline.channels import MOST_CHANNELS  # loads NumPy, and every `--help` loads this

    if text in ("auto", "first", "mix"):
        return text  # type: ignore[return-value]
    if text in map(str, range(MOST_CHANNELS)):
        return int(text)
    raise UsageError(f"--channel takes auto, first, mix or a number from 0 to {MOST_CHANNELS - 1}, not {text!r}")
