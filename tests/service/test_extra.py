"""Says which libraries keep the tests of the service from running."""

from __future__ import annotations

import pytest
from support.service_extra import MISSING


def test_the_libraries_of_the_service_are_installed() -> None:
    if MISSING:
        pytest.skip(f"all tests of the service are left out: not installed: {', '.join(MISSING)} (extra serve)")
