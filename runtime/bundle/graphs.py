"""The graphs that a bundle holds."""

from __future__ import annotations

from typing import Literal

__all__ = ["DECIDING", "Graph"]

Graph = Literal["vision", "audio", "text", "head"]

DECIDING: tuple[Graph, ...] = ("vision", "audio", "head")
"""The graphs that a window goes through."""
