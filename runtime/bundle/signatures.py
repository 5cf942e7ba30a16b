"""Detached minisign signatures of bundles: they prove who made a bundle, whatever the bundle itself claims.

The signature beside the manifest covers the manifest's bytes, and so the hashes of all other files.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ovavel.runtime.bundle.manifest import MANIFEST
from ovavel.runtime.errors import BundleError, MissingExtraError, UsageError

__all__ = ["SIGNATURE", "PublicKey", "check_signature"]

SIGNATURE = MANIFEST + ".minisig"
_LONGEST = 16_384
"""Largest file of a key or a signature in bytes; both have about a hundred."""
_COMMENT, _TRUSTED = "untrusted comment: ", "trusted comment: "
_ALGORITHM, _OF_HASH = b"Ed", b"ED"
"""Ed25519, of the file itself or, as minisign does since 0.8, of its BLAKE2b hash."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public key whose signatures are accepted."""

    identity: bytes
    """8 bytes."""
    key: bytes
    """32 bytes, Ed25519."""

    @classmethod
    def read(cls, given: str) -> PublicKey:
        """Read a minisign public key, given directly or as the path of its file.

        Raises:
            UsageError: it is neither.
        """
        text = given.strip()
        try:
            if Path(given).is_file():
                text = _lines(Path(given), 1)[0]
            data = _decoded(text)
        except (OSError, ValueError):
            data = b""
        if len(data) != 42 or data[:2] != _ALGORITHM:
            raise UsageError(
                "--require-signature takes a public key of minisign, or the path of its file, and this is neither: "
                f"{given[:100]!r}. `minisign -G` makes a pair of keys"
            )
        return cls(data[2:10], data[10:])


def check_signature(folder: Path, manifest: bytes, key: PublicKey) -> None:
    """Check that the bundle `folder` has a signature by `key` over the bytes of its manifest.

    Raises:
        BundleError: there is none, or it is by another key or over something else.
        MissingExtraError: cryptography is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise MissingExtraError("cryptography", "signatures", need="--require-signature") from error

    file = folder / SIGNATURE
    instead = f"ask whoever made the bundle for one, or sign it if it is yours: minisign -Sm {MANIFEST}"
    try:
        first, comment, second = _lines(file, 3)
        data, whole = _decoded(first), _decoded(second)
        if len(data) != 74 or data[:2] not in (_ALGORITHM, _OF_HASH) or not comment.startswith(_TRUSTED):
            raise ValueError("it does not have minisign's format")
    except FileNotFoundError as error:
        raise BundleError(f"the bundle {folder} is not signed: it has no {SIGNATURE}; {instead}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} is not a minisign signature ({error}); {instead}") from error
    if data[2:10] != key.identity:
        raise BundleError(f"{file} was signed with another key than the one given with --require-signature; {instead}")
    signed = hashlib.blake2b(manifest).digest() if data[:2] == _OF_HASH else manifest
    try:
        public = Ed25519PublicKey.from_public_bytes(key.key)
        public.verify(data[10:], signed)
        public.verify(whole, data[10:] + comment.removeprefix(_TRUSTED).encode())
    except (InvalidSignature, ValueError) as error:
        raise BundleError(
            f"the bundle {folder} is not as it was signed: {SIGNATURE} is no signature of its {MANIFEST}. Do not trust "
            "it, unless you changed its vocabulary or calibration yourself; then sign it again"
        ) from error


def _decoded(text: str) -> bytes:
    """Decode canonical base64; raises ValueError for any other."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("it is not valid base64")
    return data


def _lines(path: Path, count: int) -> list[str]:
    """Return the lines of a small file after its comment; their number is fixed.

    Raises:
        OSError: it cannot be read.
        ValueError: it has other lines.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for a writer
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(_LONGEST + 1)
    if data is None or len(data) > _LONGEST:
        raise ValueError("it is far too long")
    comment, *lines = data.decode().rstrip("\r\n").replace("\r\n", "\n").split("\n")
    if not comment.startswith(_COMMENT) or len(lines) != count:
        raise ValueError("it has other lines")
    return lines
