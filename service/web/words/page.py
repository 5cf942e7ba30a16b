"""The page Words: the names that are searched for, and a form that shows what a new one would mean before it is added.

Adding is in two steps: `words?name=…` looks at a name and shows its preview; what is sent from there adds it.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.runtime.errors import OvavelError
from ovavel.service.config.read import rules_of
from ovavel.service.names.editor import check_name, has_text_encoder
from ovavel.service.store.people import Identity
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import asking, parameters
from ovavel.service.web.templates import Templates
from ovavel.service.web.words.api import WordsAPI, why_not

__all__ = ["WordsPage"]


class WordsPage:
    """The page Words."""

    def __init__(self, service: Service, api: WordsAPI, templates: Templates, *, may_change: bool) -> None:
        """`may_change`: whether this service can change the names of its bundle."""
        self._service, self._api, self._templates, self._may_change = service, api, templates, may_change

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [Route("/words", self.words)]

    def words(self, request: Request) -> Response:
        """The vocabulary, what it found, and how to change it."""
        me, asked = asking(request), parameters(request, "name").get("name", "")
        bundle = self._service.bundle
        calibration = bundle.manifest.calibration
        name, refused = self._looked_at(me, asked)
        return self._templates.answer(
            request,
            "words.html",
            title="Words",
            labels=self._api.label_list(),
            background=bundle.vocabulary.background,
            version=bundle.vocabulary.version,
            bundle=bundle.path,
            calibrated=calibration is not None,
            fits=calibration is not None and calibration.fits(bundle.vocabulary),
            margins=[
                (
                    each.id,
                    each.name or each.id,
                    *rules_of(each).margins(calibration),
                    each.min_duration_s,
                    each.bridge_s,
                )
                for each in self._service.site.camera
            ],
            text_encoder=has_text_encoder(bundle),
            changeable=self._may_change and me.may("admin"),
            asked=asked,
            name=name,
            refused=refused,
        )

    def _looked_at(self, me: Identity, asked: str) -> tuple[str, str]:
        """A name as it would be added, and why it cannot be; both are empty where none is asked for."""
        if not asked or not (self._may_change and me.may("admin")):
            return "", ""
        try:
            return check_name(self._service.bundle, asked), ""
        except OvavelError as error:
            return "", why_not(error)
