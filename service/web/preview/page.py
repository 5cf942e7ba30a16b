"""The page Preview: other settings of a camera are tried on the last days before they are saved."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.runtime.archive.layout import CONTEXT
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.rules.apply import live_rule
from ovavel.runtime.pipeline.rules.registry import RULES
from ovavel.service.config.read import rules_of
from ovavel.service.config.site import Camera
from ovavel.service.names.adopt import rule_of
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, asking, parameters
from ovavel.service.web.templates import Templates

__all__ = ["PreviewPage"]


class PreviewPage:
    """The page Preview."""

    def __init__(self, service: Service, templates: Templates) -> None:
        self._service, self._templates = service, templates

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [Route("/preview", self.preview)]

    def preview(self, request: Request) -> Response:
        """A form with the settings in force; what others would have found comes as it is decided."""
        asking(request, "operate")
        service = self._service
        asked = parameters(request, "camera").get("camera") or service.site.camera[0].id
        camera = next((each for each in service.site.camera if each.id == asked), None)
        if camera is None:
            raise Problem(404, f"there is no camera {asked!r}")
        own = rule_of(service.bundle)
        return self._templates.answer(
            request,
            "preview.html",
            title="Preview",
            camera=camera,
            cameras=[(each.id, each.name or each.id) for each in service.site.camera],
            archived=(service.archivist.folder / CONTEXT).is_dir(),
            rule=own.name,
            looks_around=RULES[own.kind].looks_around,
            rules=self._other_rules(),
            values=self._values(camera),
            kept_days=service.site.keep.archive_days,
        )

    def _values(self, camera: Camera) -> dict[str, Any]:
        rules = rules_of(camera)
        start, keep = rules.margins(self._service.bundle.manifest.calibration)
        return {
            "start_margin": round(start, 4),
            "keep_margin": round(keep, 4),
            "min_duration_s": rules.min_duration_s,
            "bridge_s": rules.bridge_s,
        }

    def _other_rules(self) -> list[str]:
        """Rules that can decide on single seconds of the archive as they are, without being fitted first."""
        bundle, found = self._service.bundle, list[str]()
        fusion, texts = bundle.manifest.fusion, len(bundle.vocabulary.background_texts)
        for kind, info in RULES.items():
            try:
                rule = live_rule(fusion.decides, fusion.decision, kind, bundle.vocabulary.names, texts)
            except UsageError:
                continue
            if not info.looks_around and rule != fusion.decides:
                found.append(kind)
        return found
