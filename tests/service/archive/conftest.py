"""The encoder of the demo, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from support.service import DEMO

from ovavel.service.encoding.remote import RemoteEncoder


@pytest.fixture(scope="module")
def encoder() -> Iterator[RemoteEncoder]:
    with closing(RemoteEncoder(DEMO / "bundle", {"threads": 1})) as opened:
        yield opened
