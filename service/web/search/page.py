"""The page Search."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.runtime.archive.layout import CONTEXT
from ovavel.service.names.editor import has_text_encoder
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import parameters
from ovavel.service.web.templates import Templates

__all__ = ["SearchPage"]


class SearchPage:
    """The page Search."""

    def __init__(self, service: Service, templates: Templates, *, may_change: bool) -> None:
        """`may_change`: whether this service can change the names of its bundle."""
        self._service, self._templates, self._may_change = service, templates, may_change

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [Route("/search", self.search)]

    def search(self, request: Request) -> Response:
        """A form whose answers come as they are found."""
        asked = parameters(request, "phrase").get("phrase", "")
        service = self._service
        return self._templates.answer(
            request,
            "search.html",
            title="Search",
            asked=asked,
            archived=(service.archivist.folder / CONTEXT).is_dir(),
            text_encoder=has_text_encoder(service.bundle),
            cameras=[(camera, feed.camera.name or camera) for camera, feed in service.feeds.items()],
            changeable=self._may_change,
            days=service.site.keep.archive_days,
        )
