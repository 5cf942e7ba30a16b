"""`ovavel doctor --camera`: what a camera sends, and what to change."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovavel.runtime.commands.camera_check import CameraReport

__all__ = ["WATCH_S", "examine_camera"]

WATCH_S = 10.0


def examine_camera(camera: str, microphone: str | None, *, as_json: bool) -> int:
    """Watch `camera`, print what was found, and return the exit code.

    Raises:
        UsageError, MediaError, DeviceError, MissingExtraError: it or the microphone cannot be opened.
    """
    from ovavel.runtime.commands.camera_check import check_camera
    from ovavel.runtime.sources.access import address_of
    from ovavel.runtime.system.native_output import captured_stderr

    address = address_of(camera)
    # Sound systems write there whenever they are opened.
    with nullcontext() if microphone is None else captured_stderr(lambda _: None):
        report = check_camera(address, seconds=WATCH_S, microphone=microphone)
    if as_json:
        from ovavel.runtime.sinks.as_json import to_json_bytes

        print(to_json_bytes(report, indent=2).decode())
    else:
        _print(report)
    return 0 if report.works else 1


def _print(report: CameraReport) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ovavel.runtime.reporting.console import OutputConsole

    console = OutputConsole()
    table = Table("", "", show_header=False, box=None, pad_edge=False)
    rows = {
        "Camera": report.source,
        "Opened": f"after {report.opened_after_s:.1f} s",
        "Picture": _picture(report),
        "Sound": _sound(report),
        "Clock": _clock(report),
        "Seconds": f"{report.whole} of {report.windows} have a picture and sound throughout",
        "Missing": ", ".join(f"{cause} {seconds:.1f} s" for cause, seconds in sorted(report.gaps.items())),
    }
    for title, value in rows.items():
        if value:
            table.add_row(f"[bold]{title}", escape(value))
    console.print(table)
    console.print()
    for sentence in (*report.notices, *report.advice):
        console.print(f"[yellow]![/] {escape(sentence)}", soft_wrap=True)
    console.print("[green]Events can be found in it." if report.works else "[red]No events can be found in it.")


def _picture(report: CameraReport) -> str:
    video = report.video
    if video is None:
        return "none"
    parts = [*filter(None, [video.codec]), f"{video.width} × {video.height}", f"{video.rate_hz:.1f} pictures a second"]
    if video.keyless_s is not None:
        parts.append(f"{video.keyless_s:.1f} s between key frames at most")
    return ", ".join(parts)


def _sound(report: CameraReport) -> str:
    sound = report.sound
    if sound is None:
        return "none"
    level = "silence" if sound.peak_db is None else f"peak {sound.peak_db:.0f} dB"
    channels = f"{sound.channels} channel{'' if sound.channels == 1 else 's'}"
    return ", ".join(filter(None, (sound.codec, f"{sound.rate_hz} Hz", channels, level)))


def _clock(report: CameraReport) -> str:
    clock = report.clock
    stamps = {None: "that of this machine", True: "its own time stamps"}
    parts = [stamps.get(clock.stamped, "no time stamps: pictures count when they arrive")]
    if clock.jumps:
        parts.append(f"{clock.jumps} jumps")
    if clock.speed is not None:
        parts.append(f"{clock.speed:.2f} s a second")
    if clock.late_s is not None:
        parts.append(f"arrives within {clock.late_s:.2f} s")
    return ", ".join(parts)
