"""Adds a name to a bundle, `python -m ovavel.service.names.child FD`: the text encoder is needed for seconds alone."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from msgspec import Struct

from ovavel.runtime.commands.vocab import Add
from ovavel.runtime.errors import OvavelError
from ovavel.service.link import Child, LinkClosed

__all__ = ["Done", "Wanted", "main"]

_NICE = 10
"""The cameras come first."""


class Wanted(Struct, frozen=True, kw_only=True):
    """The one message to it."""

    bundle: str
    name: str


class Done(Struct, frozen=True, kw_only=True):
    """The one message from it."""

    error: str
    """Why the bundle is as before; empty where it has the name now."""


def main(descriptor: str) -> int:
    """Serve the link with this descriptor."""
    link = Child.inherited(descriptor)
    os.nice(_NICE)
    with contextlib.suppress(LinkClosed):  # the service is gone or ends
        wanted: Wanted = link.receive(Wanted)
        error = ""
        try:
            with contextlib.redirect_stdout(None):
                Add(names=(wanted.name,), bundle=Path(wanted.bundle)).run()
        except OvavelError as caught:
            error = str(caught)
        link.send(Done(error=error))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
