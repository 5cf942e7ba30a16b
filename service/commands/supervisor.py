"""What systemd wants to know of a service: that it is ready, that it lives, and that it is ending (`sd_notify`)."""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["report", "watchdog_s"]


def report(*states: str) -> None:
    """Send states such as "READY=1" to the service manager that started this process, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        # A leading @ stands for the abstract namespace of Linux.
        connection.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        connection.sendall("\n".join(states).encode())


def watchdog_s() -> float | None:
    """How often the manager wants to hear of this process, in seconds; None if it does not."""
    value, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not value.isdecimal() or not int(value) or (pid and pid != str(os.getpid())):
        return None
    return int(value) / 1e6
