"""Passwords: argon2id, a few at a time, and a pause for whoever guesses."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

__all__ = ["LONGEST", "SHORTEST", "Attempts", "check_password", "hashed", "matches"]

SHORTEST, LONGEST = 10, 1024
"""Characters of a password."""

_hasher = PasswordHasher()
_UNKNOWN = _hasher.hash("no password at all")
_AT_A_TIME = 2
"""Each verification takes 64 MiB: many at once would take the machine from the encoder."""
_at_work = threading.Semaphore(_AT_A_TIME)


def check_password(password: str) -> None:
    """Raise ValueError where a password is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")


def hashed(password: str) -> str:
    """What is kept of a password.

    Raises:
        ValueError: it is too short or too long.
    """
    check_password(password)
    with _at_work:
        return _hasher.hash(password)


def matches(kept: str | None, password: str) -> bool:
    """Whether it is the right one; for a user who is not there (None), it takes as long to say no."""
    with _at_work:
        try:
            _hasher.verify(kept or _UNKNOWN, password[: LONGEST + 1])
        except (Argon2Error, InvalidHashError):
            return False
    return kept is not None


class Attempts:
    """Counts failed logins of each address. Methods may be called from several threads."""

    MOST = 8
    """Failures within `WITHIN_S` after which an address has to wait."""
    WITHIN_S = 600.0
    _ADDRESSES = 4096

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()
        self._turn = threading.Lock()

    def wait_s(self, address: str) -> float:
        """How long the address must not try again; 0 where it may."""
        with self._turn:
            failed = self._failed.get(_network(address))
            if not failed or len(failed) < self.MOST:
                return 0.0
            return max(0.0, failed[0] + self.WITHIN_S - self._clock())

    def failed(self, address: str) -> None:
        """An attempt failed."""
        with self._turn:
            network = _network(address)
            failed = self._failed.setdefault(network, deque(maxlen=self.MOST))
            failed.append(self._clock())
            self._failed.move_to_end(network)
            while len(self._failed) > self._ADDRESSES:
                self._failed.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """The right password was given."""
        with self._turn:
            self._failed.pop(_network(address), None)


def _network(address: str) -> str:
    """What one person has: an IPv4 address, or 64 bits of an IPv6 one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    bits = 64 if found.version == 6 else 32
    return str(ipaddress.ip_network((found, bits), strict=False))
