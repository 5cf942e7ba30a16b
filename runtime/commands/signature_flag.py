"""The flag --require-signature, in one wording for every command that has it."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg

__all__ = ["SignatureFlag"]

SignatureFlag = Annotated[
    str | None,
    arg(
        metavar="KEY",
        help="Refuse the bundle unless its manifest.json.minisig is a signature by this public key of minisign, or by "
        "the one in this file.",
    ),
]
"""A public key, or a path."""
