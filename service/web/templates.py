"""The templates of the pages. Whatever is put into them is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ovavel.service.store.people import Identity
from ovavel.service.web.answers import IDENTITY, base_of

__all__ = ["Templates"]

_FOLDER = Path(__file__).parent / "templates"
_PAGES = (
    ("Now", ""),
    ("Events", "events"),
    ("Search", "search"),
    ("Words", "words"),
    ("Health", "health"),
    ("Settings", "settings"),
)


class Templates:
    """Renders pages of one site."""

    def __init__(self, **constant: Any) -> None:
        """Put `constant` into every page."""
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        self._environment.filters["pairs"] = lambda values: [(each, each) for each in values]
        self.constant = constant

    def answer(self, request: Request, template: str, *, title: str, status: int = 200, **content: Any) -> Response:
        """One page. Addresses in it are relative, so that a proxy may put the service under any path."""
        identity: Identity | None = request.scope.get(IDENTITY)
        text = self._environment.get_template(template).render(
            title=title,
            page=template.removesuffix(".html"),
            pages=_PAGES,
            base=base_of(request),
            me=identity,
            **self.constant,
            **content,
        )
        return HTMLResponse(text, status, {"cache-control": "no-store"})
