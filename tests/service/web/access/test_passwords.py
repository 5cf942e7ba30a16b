"""Passwords and the pause after too many wrong ones."""

from __future__ import annotations

import pytest

from ovavel.service.web.access.passwords import Attempts, hashed, matches


def test_only_the_right_password_matches() -> None:
    kept = hashed("correct horse")
    assert kept.startswith("$argon2id$")
    assert matches(kept, "correct horse")
    assert not matches(kept, "correct horsf")
    assert not matches(None, "no password at all")
    assert not matches("damaged", "correct horse")
    with pytest.raises(ValueError, match="10 to"):
        hashed("short")


def test_an_address_waits_after_too_many_failures_and_others_do_not() -> None:
    now_s = [0.0]
    attempts = Attempts(lambda: now_s[0])
    for _ in range(Attempts.MOST):
        assert attempts.wait_s("2001:db8::1") == 0
        attempts.failed("2001:db8::1")
    assert attempts.wait_s("2001:db8::ffff") == Attempts.WITHIN_S, "the same network"
    assert attempts.wait_s("2001:db8:0:1::1") == 0
    assert attempts.wait_s("192.0.2.1") == 0
    now_s[0] = Attempts.WITHIN_S
    assert attempts.wait_s("2001:db8::1") == 0
    attempts.failed("2001:db8::1")
    attempts.succeeded("2001:db8::1")
    assert attempts.wait_s("2001:db8::1") == 0


def test_the_table_of_addresses_does_not_grow_without_end() -> None:
    attempts = Attempts()
    for number in range(5000):
        attempts.failed(f"10.0.{number >> 8}.{number & 255}")
    assert len(attempts._failed) == Attempts._ADDRESSES
