"""Address of the published ImageBind weights."""

from __future__ import annotations

__all__ = ["DEFAULT_URL"]

DEFAULT_URL = "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth"
"""ImageBind-Huge as published by its authors."""
