"""Identifies a recording by its content, whatever its name and folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["BLOCK", "WHOLE", "block_offsets", "fingerprint", "fingerprint_of"]

BLOCK = 1 << 18
BLOCKS = 64
"""So many blocks, spread evenly over a file, are read; all of a file that is no larger."""
WHOLE = BLOCK * BLOCKS
"""Size in bytes of a file that is read as a whole: 16 MiB."""


def fingerprint(path: Path) -> str | None:
    """SHA-256 of a file's size and content, of a large file of 16 MiB from all over it; None unless it can be read.

    Two recordings of one size that differ nowhere in those 16 MiB are made on purpose only, by overwriting a part.
    """
    try:
        if not path.is_file():  # reading a pipe would take away what is to be played
            return None
        with path.open("rb") as file:

            def read(offset: int) -> bytes:
                file.seek(offset)
                return file.read(BLOCK)

            size = path.stat().st_size
            return fingerprint_of(size, map(read, block_offsets(size)))
    except (OSError, ValueError):
        return None


def block_offsets(size: int) -> list[int]:
    """Where the blocks of `BLOCK` bytes begin that are read of `size` bytes."""
    if size <= WHOLE:
        return list(range(0, size, BLOCK))
    return [(size - BLOCK) * n // (BLOCKS - 1) for n in range(BLOCKS)]


def fingerprint_of(size: int, blocks: Iterable[bytes]) -> str:
    """The fingerprint of a file of `size` bytes, from its blocks at `block_offsets(size)`."""
    digest = hashlib.sha256(str(size).encode())
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()
