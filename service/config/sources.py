"""What a camera's source is: an address, a file, or a camera of this machine, with or without a microphone."""

from __future__ import annotations

import os

from ovavel.runtime.errors import UsageError
from ovavel.runtime.reporting.text import quoted
from ovavel.runtime.sources.access import is_network
from ovavel.runtime.sources.devices import camera_device
from ovavel.service.config.site import Camera

__all__ = ["check_source", "device_file", "is_deferred", "is_encoded"]


def is_deferred(source: str) -> bool:
    """Whether `source` only says where the address is: "@FILE" or "env:NAME"."""
    return source.startswith(("@", "env:"))


def check_source(source: str, *, microphone: str | None, sound: bool, loop: bool) -> None:
    """Refuse what cannot be watched in this way. `source` is not deferred.

    Raises:
        UsageError: it says what is wrong, and what to do.
    """
    device, network = camera_device(source), is_network(source)
    if loop and (network or device is not None):
        raise UsageError("loop is for a file, not for an address or a camera of this machine")
    if microphone is not None and not network and device is None:
        raise UsageError(
            "microphone is for a camera of this machine or an address; a file brings its own sound, so leave it out"
        )
    if device is not None and microphone is None and sound:
        raise UsageError(
            f"a camera of this machine such as {quoted(source)} has no sound of its own: add "
            "microphone = \"default\", or another one that 'ovavel live --list-devices' shows, or sound = false"
        )


def device_file(source: str) -> str | None:
    """The device file of a camera of this machine, whatever name `source` has for it; None for anything else."""
    device = camera_device(source)
    if device is None:
        return None
    return f"/dev/video{device}" if isinstance(device, int) else os.path.realpath(device)


def is_encoded(camera: Camera) -> bool:
    """Whether clips are encoded from what the camera shows, masks included, and none of its own packets copied."""
    return camera.transcode or camera.microphone is not None or camera_device(camera.source) is not None
