"""Run the demo: the clip or a real camera through the live pipeline, with explanations before and after."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue

from ovavel.eval.demo.assets import Assets, copy_bundle
from ovavel.eval.demo.comparison import Comparison, compare, to_json
from ovavel.eval.demo.report import to_html
from ovavel.eval.demo.terminal import percent, side_by_side, verdict
from ovavel.runtime.backends import open_backend
from ovavel.runtime.install import install_command
from ovavel.runtime.reporting.console import OutputConsole
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.results import FORMATS, write_results
from ovavel.runtime.results.recording import Recorder
from ovavel.runtime.run import drive
from ovavel.runtime.session import Session
from ovavel.runtime.sinks.view import open_view
from ovavel.runtime.sources.access import address_of
from ovavel.runtime.sources.camera_mic import CameraMicSource
from ovavel.runtime.sources.devices import index_or_name
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.system.files import atomic_write, output_error
from ovavel.runtime.system.native_output import captured_stderr

__all__ = ["ENOUGH_EVE", "play_clip", "watch_camera"]

ENOUGH_EVE = 0.7
"""Eve. that the bundled model reaches on its clip; a lower value is reported as a problem."""
_INTERRUPTED = 130
_LABEL = "a demo world: this model knows only made-up things, nothing of the real world"
"""Shown in the live view, which hides earlier output."""


def play_clip(assets: Assets, out: Path, *, fast: bool = False) -> int:
    """Play the clip, write all results into `out`, compare them with the truth, and return the exit code.

    Raises:
        OutputError: `out` cannot be written to; raised before anything is played.
        MissingExtraError: ONNX Runtime is not installed.
    """
    console = OutputConsole(highlight=False, soft_wrap=True)
    backend = open_backend(assets.bundle, device="cpu")
    clip = _hand_out(assets, out)
    seconds = len(assets.truth.labels)
    console.print(
        f"A clip of {seconds} seconds from a small made-up world, and a small model that was trained on other clips of "
        f"that world.\nIt watches and listens {'as fast as it can' if fast else 'live'}, and reports which of "
        f"{len(assets.bundle.vocabulary) - 1} things is both seen and heard. Ctrl-C ends it.\n"
    )
    recorder = Recorder(thumbnails=True, duration_s=seconds)
    source = MediaSource(clip, realtime=not fast)
    with Session(assets.bundle, source, backend=backend) as session:
        drive(session, [open_view(), recorder], messages=_labelled())
    backend.close()
    localization = recorder.localization(session)
    if len(localization.scores) < seconds:
        console.print(
            f"\nStopped after {len(localization.scores)} of {seconds} seconds, too early to compare with the truth. "
            "--fast takes a second or two."
        )
        return _INTERRUPTED
    comparison = compare(localization, assets.truth.labels, assets.truth.notes)
    write_results(localization, out, FORMATS)
    page = out / "demo.html"
    atomic_write(page, to_html(comparison, localization, clip))
    atomic_write(out / "demo.json", to_json(comparison))
    _conclude(comparison, page, console)
    return 0


def watch_camera(assets: Assets, camera: str, microphone: str) -> int:
    """Run the same model on a real camera and microphone until interrupted, and return the exit code.

    Raises:
        DeviceError, MissingExtraError: the camera or the microphone cannot be opened.
    """
    console = OutputConsole(highlight=False, soft_wrap=True)
    messages = _labelled()
    with captured_stderr(messages.put):
        _watch_camera(assets, index_or_name(address_of(camera)), index_or_name(microphone), messages, console)
    console.print(
        f"\nThat was the demo model, which knows only its own world. The real one: {_command()} bundle weights --help",
        markup=False,
    )
    return 0


def _watch_camera(
    assets: Assets, camera: int | str, microphone: int | str, messages: SimpleQueue[str], console: OutputConsole
) -> None:
    source = CameraMicSource(camera, microphone)
    console.print(
        "This model knows nothing but its own made-up world of drawings and synthetic sounds. Whatever your camera and "
        "microphone\nbring, it can only answer with one of these names, and it will mostly be wrong:\n",
        style="yellow",
    )
    console.print(", ".join(map(one_line, assets.bundle.vocabulary.names[:-1])), markup=False, style="bright_black")
    console.print("\nHold a screen that shows the demo's clip into the camera, and it has a chance. Ctrl-C ends it.\n")
    with Session(assets.bundle, source, device="cpu") as session:
        drive(session, [open_view()], messages=messages)


def _labelled() -> SimpleQueue[str]:
    """Messages for the view, the first of which says what it shows."""
    messages: SimpleQueue[str] = SimpleQueue()
    messages.put(_LABEL)
    return messages


def _hand_out(assets: Assets, out: Path) -> Path:
    """Copy the clip and, unless it exists already, the bundle into `out`; return the clip's path there."""
    clip, bundle = out / assets.clip.name, out / "bundle"
    try:
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(clip, assets.clip.read_bytes())
        copy_bundle(assets.bundle, bundle)
    except OSError as error:
        raise output_error(out, error) from error
    return clip


def _conclude(comparison: Comparison, page: Path, console: OutputConsole) -> None:
    console.print()
    console.print(side_by_side(comparison, console))
    console.print(f"{verdict(comparison)}\n", style="bold", markup=False)
    if comparison.dropped:
        console.print(
            f"This machine was too slow for {comparison.dropped} of the seconds; they count as wrong unless nothing "
            "happened in them. Try --fast.\n",
            style="yellow",
        )
    if comparison.scores.eve < ENOUGH_EVE:
        console.print(
            f"Its events do not match the truth: Eve. {percent(comparison.scores.eve)}, where this model should reach "
            f"{percent(ENOUGH_EVE)} on this clip.\n",
            style="yellow",
        )
    console.print(
        "A demo world: this model has only learnt made-up pictures and sounds, and knows nothing of the real world.\n"
    )
    command, out = _command(), page.parent
    for what, why in (
        (str(page), "open it in a browser: the clip, with the truth and ovavel's events"),
        (f"{out / 'clip.mp4'}.ovavel.*", "the files that 'ovavel localize' writes for any recording"),
        (str(out / "bundle"), f"the model, for experiments: {command} vocab list --bundle {out / 'bundle'}"),
    ):
        console.print(f"{one_line(what)}\n    {one_line(why)}", markup=False)
    console.print("\nWhat next:", style="bold")
    needs = "" if find_spec("cv2") and find_spec("sounddevice") else f"; needs {install_command('live')}"
    console.print(f"  {command} demo --camera\n    the same model on your camera and microphone{needs}", markup=False)
    console.print(
        f"  {command} bundle weights --help\n    the real model: ImageBind, and any names you like", markup=False
    )


def _command() -> str:
    """Return the command to run ovavel, with its path if a shell would not find it."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "ovavel" and not shutil.which("ovavel") else "ovavel"
