"""What a run of a camera is made of: its facts for the store, and what decides in it."""

from __future__ import annotations

import msgspec

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.pipeline.tracker import EventTracker
from ovavel.service.config.read import rules_of
from ovavel.service.config.site import Camera
from ovavel.service.encoding.remote import RemoteEncoder
from ovavel.service.names.adopt import rule_of
from ovavel.service.store.cameras import RunFacts
from ovavel.service.watch.economy.run import RunEconomy
from ovavel.service.watch.encode import persistent_head
from ovavel.service.watch.runs.wall_clock import boot_id

__all__ = ["RunParts"]


class RunParts:
    """Makes what is a run's own, of what all runs share."""

    def __init__(self, bundle: Bundle, encoder: RemoteEncoder) -> None:
        """Decide with the vocabulary and the rule of `bundle`, through `encoder`.

        Raises:
            UsageError: the rule cannot decide with these names.
        """
        self.bundle, self._encoder = bundle, encoder
        self._rule, self._boot_id = rule_of(bundle), boot_id()

    def facts(self, camera: str, run: str, started_us: int) -> RunFacts:
        """The run `run` of a camera for the store."""
        return RunFacts(
            id=run,
            camera_id=camera,
            boot_id=self._boot_id,
            started_us=started_us,
            bundle_sha=self.bundle.sha256,
            engine=msgspec.json.encode(self._encoder.ready.info).decode(),
            vocabulary_version=self.bundle.vocabulary.version,
        )

    def tracker(self, camera: Camera) -> EventTracker:
        """What makes events of scores."""
        vocabulary, calibration = self.bundle.vocabulary, self.bundle.manifest.calibration
        return EventTracker(
            vocabulary.background, rules_of(camera), vocabulary_version=vocabulary.version, calibration=calibration
        )

    def localizer(self, camera: Camera, economy: RunEconomy) -> Localizer:
        """What scores segments, and asks `economy` for pictures."""
        return Localizer(
            persistent_head(self._encoder),
            self.bundle.vocabulary,
            lag=camera.lag,
            calibration=self.bundle.manifest.calibration_for(self._rule),
            rule=self._rule,
            looking=economy,
        )
