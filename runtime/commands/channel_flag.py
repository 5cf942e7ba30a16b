"""The flag --channel, in one wording for every command that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from ovavel.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovavel.runtime.pipeline.channels import Channel

__all__ = ["ChannelFlag", "parse_channel"]

ChannelFlag = Annotated[
    str,
    arg(
        metavar="{auto,first,mix,N}",
        help="Channel of the sound to listen to: auto is the first one, unless it has been silent while another was "
        "not, then the loudest; mix is the mean of all; a number counts from 0.",
    ),
]
"""Type of the flag --channel; `parse_channel` reads it."""


def parse_channel(text: str) -> Channel:
    """Read the value of --channel.

    Raises:
        UsageError: it is none.
    """
    from ovavel.runtime.pipeline.channels import MOST_CHANNELS  # loads NumPy, and every `--help` loads this

    if text in ("auto", "first", "mix"):
        return text  # type: ignore[return-value]
    if text in map(str, range(MOST_CHANNELS)):
        return int(text)
    raise UsageError(f"--channel takes auto, first, mix or a number from 0 to {MOST_CHANNELS - 1}, not {text!r}")
