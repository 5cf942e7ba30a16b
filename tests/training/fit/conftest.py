"""Data that the tests of this folder share.

What imports PyTorch is imported where it is needed: this file is read without it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ovavel.training.fit.data import Data


@pytest.fixture(scope="module")
def data() -> Data:
    from support.synthetic import make_data

    return make_data()
