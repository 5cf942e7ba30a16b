"""Where the ImageBind weights are published."""

from __future__ import annotations

__all__ = ["DEFAULT_URL"]

DEFAULT_URL = "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth"
"""ImageBind-Huge as its authors publish it."""
