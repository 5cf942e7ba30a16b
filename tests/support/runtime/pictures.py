"""How many pictures a recording or an address gives, or why it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ovavel.runtime.errors import OvavelError
from ovavel.runtime.sources.access import Access
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Frame


def pictures(url: str | Path, **trust: Any) -> int:
    """How many there are in a recording; of a live stream the first is enough."""
    source = MediaSource(url, access=Access(**trust))
    seen = 0
    for chunk in source.chunks():
        seen += isinstance(chunk, Frame)
        if seen and source.live:
            source.close()
    return seen


def refused(url: str | Path, **trust: Any) -> str:
    with pytest.raises(OvavelError) as error:
        pictures(url, **trust)
    return str(error.value)
