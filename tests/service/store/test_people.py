"""Users, tokens, sessions and the audit: what is kept, what ends with what, and what is never kept."""

from __future__ import annotations

import pytest

from ovavel.service.store import people
from ovavel.service.store.database import FILE, Database

DAY_US = 86_400_000_000


def test_a_session_ends_with_its_time_its_user_and_a_new_password(store: Database) -> None:
    with store.write() as transaction:
        people.set_user(transaction, "anna", "operate", "hash", now_us=0)
        first = people.open_session(transaction, "anna", now_us=0)
    found = people.find_session(store.read, first, now_us=1)
    assert found == people.Identity(name="anna", role="operate")
    assert found.may("view")
    assert not found.may("admin")
    assert people.find_session(store.read, first, now_us=31 * DAY_US) is None
    assert people.find_session(store.read, first[:-1], now_us=1) is None
    with store.write() as transaction:
        people.set_user(transaction, "anna", "view", "other", now_us=1)
        second = people.open_session(transaction, "anna", now_us=1)
    assert people.find_session(store.read, first, now_us=2) is None
    with store.write() as transaction:
        assert people.remove_user(transaction, "anna")
        assert not people.remove_user(transaction, "anna")
    assert people.find_session(store.read, second, now_us=2) is None
    assert not people.anybody(store.read)


def test_tokens_are_kept_as_digests(store: Database) -> None:
    with store.write() as transaction:
        text = people.add_token(transaction, "backup", "view", now_us=0)
        with pytest.raises(ValueError, match="already"):
            people.add_token(transaction, "backup", "view", now_us=0)
    assert people.find_token(store.read, text) == people.Identity(name="token backup", role="view")
    assert people.find_token(store.read, "") is None
    assert people.find_token(store.read, text + "\ud800") is None
    files = b"".join(each.read_bytes() for each in store.folder.glob(f"{FILE}*"))
    assert text.encode() not in files


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "..", "x" * 65, "\u202eanna"])
def test_names_that_nobody_could_read_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="visible"):
        people.check_name(name)


def test_the_audit_is_read_from_the_newest_on(store: Database) -> None:
    with store.write() as transaction:
        for number in range(5):
            people.audit(transaction, "anna", "review", {"event": number}, now_us=number)
    newest = people.read_audit(store.read, limit=2)
    assert [each.detail for each in newest] == [{"event": 4}, {"event": 3}]
    assert [each.utc_us for each in people.read_audit(store.read, before=newest[-1].id)] == [2, 1, 0]
