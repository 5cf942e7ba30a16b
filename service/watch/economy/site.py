"""The economy of every camera of a site: what runs, why not all of it, and what it saves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec
from msgspec import Struct

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.economy.plan import plan_economy
from ovavel.runtime.economy.settings import Economy, EconomyPlan
from ovavel.runtime.economy.work import work_of
from ovavel.runtime.errors import InputError
from ovavel.runtime.types import EconomyMode
from ovavel.runtime.verification.economy import require_economy_gate
from ovavel.service.config.read import economy_of
from ovavel.service.config.site import Camera, Site
from ovavel.service.encoding.capacity import CameraWork
from ovavel.service.encoding.remote import RemoteEncoder
from ovavel.service.names.adopt import rule_of
from ovavel.service.watch.economy.counts import CameraCounts
from ovavel.service.watch.economy.run import Basis, RunEconomy, SharedEncoder
from ovavel.service.watch.encode import persistent_head

__all__ = ["CameraEconomy", "Economies", "EconomySpan", "check_economy", "check_names_may_change"]

_KNOWN_S = 60
"""Seconds with a picture in the last hour from which on a camera's saving is believed."""


class EconomySpan(Struct, frozen=True, kw_only=True):
    """What was and was not encoded of a camera in some time."""

    pictures: int
    """Seconds with a picture."""
    encoded: int
    """Pictures that were encoded, those of audits among them."""
    reused: int
    """Pictures that kept the embedding of an earlier one, as they had not changed."""
    sounds: int
    """Seconds with a sound."""
    sounds_reused: int
    """Sounds that kept the embedding of an earlier one; all others were encoded."""
    lost: int
    """Pictures that were needed and could not be encoded, as the encoder failed."""
    skipped: dict[str, int]
    """Seconds that were decided without their picture, by cause."""
    audited: int
    """Pictures and seconds that were looked at to check what is left out."""
    audits_failed: int
    drift_p99: float | None
    """99th percentile of the drift that audits found, as 1 - cosine; null before the first."""
    saved: float | None
    """Share of the encoders' operations that was saved; null where it is not known."""


class CameraEconomy(Struct, frozen=True, kw_only=True):
    """The economy of a camera."""

    asked: EconomyMode
    mode: EconomyMode
    """What runs."""
    why_not: str
    """Why not all of what is asked for runs; empty where it does."""
    since_start: EconomySpan
    """Since the service started."""
    last_hour: EconomySpan


class Economies:
    """Plans and counts, by camera. `run` and what changes plans is called by one thread at a time."""

    def __init__(self, site: Site | None, bundle: Bundle, encoder: RemoteEncoder) -> None:
        """For the cameras of `site`, which decide with `bundle` through `encoder`. None: every picture is encoded."""
        self._site, self._bundle, self._rule = site, bundle, rule_of(bundle)
        self._head, self._concurrent = persistent_head(encoder), encoder.ready.info.concurrent
        self._work = work_of(bundle.manifest.model.config, encoder.ready.info.precision)
        self.encoder = SharedEncoder(encoder)
        """Encodes for all runs."""
        self._made: dict[Economy, EconomyPlan] = {}  # for the present names: what it tries does not depend on a camera
        self._plans: dict[str, EconomyPlan] = {}
        self._counts: dict[str, CameraCounts] = {}

    @property
    def wake(self) -> bool:
        """Whether sound may wake vision for some camera, in this run or in the next one."""
        return any(plan.sound for plan in self._plans.values())

    def change(self, site: Site) -> None:
        """Do as `site` says, in runs that begin from now on."""
        self._site = site

    def rename(self, bundle: Bundle) -> None:
        """Plan for the names of `bundle` from now on; `renew` does so for a run."""
        self._bundle, self._rule, self._made = bundle, rule_of(bundle), {}

    def plan(self, camera: Camera, *, archived: bool) -> Economy:
        """Plan what a run of `camera` would do; returns what is asked for.

        Raises:
            EncoderLost: it could not be tried what can run.
        """
        economy = replace(self._asked(camera), every_picture="the archive" if archived else "")
        self._plans[camera.id] = self._plan(economy)
        self._counts.setdefault(camera.id, CameraCounts(self._work))
        return economy

    def run(self, camera: Camera, *, archived: bool) -> RunEconomy:
        """What a run of `camera` that begins now looks at.

        Raises:
            EncoderLost: as `plan`.
        """
        economy = self.plan(camera, archived=archived)
        return RunEconomy(
            self.encoder.look, self.encoder.listen, economy, self._basis(economy), self._counts[camera.id]
        )

    def renew(self, camera: str, run: RunEconomy) -> None:
        """Let a run of `camera` do what is right for the present names.

        Raises:
            EncoderLost: as `plan`.
        """
        basis = self._basis(run.asked)
        self._plans[camera] = basis.plan
        run.decide_by(basis)

    def _basis(self, economy: Economy) -> Basis:
        return Basis(self._plan(economy), self._rule, self._bundle.vocabulary.names)

    def forget(self, camera: str) -> None:
        """Forget a camera."""
        self._plans.pop(camera, None)
        self._counts.pop(camera, None)

    def _plan(self, economy: Economy) -> EconomyPlan:
        if economy not in self._made:
            text = self._bundle.vocabulary.embeddings
            self._made[economy] = plan_economy(economy, self._rule, self._head, text, concurrent=self._concurrent)
        return self._made[economy]

    def _asked(self, camera: Camera) -> Economy:
        return economy_of(self._site, camera) if self._site else Economy()

    def report(self, camera: Camera) -> CameraEconomy:
        """What runs for a camera, and what that saved. From any thread."""
        counts = self._counts.get(camera.id) or CameraCounts(self._work)
        asked = self._asked(camera).mode
        plan = self._plans.get(camera.id) or EconomyPlan(why_not="" if asked == "off" else "it was not watched yet")
        return CameraEconomy(
            asked=asked,
            mode=plan.mode,
            why_not=plan.why_not,
            since_start=msgspec.convert(counts.figures, EconomySpan, from_attributes=True),
            last_hour=msgspec.convert(counts.last_hour, EconomySpan, from_attributes=True),
        )

    def work(self, cameras: Iterable[Camera]) -> list[CameraWork]:
        """What these cameras bring to the encoder at present. From any thread."""
        return [self._work_of(camera) for camera in cameras]

    def _work_of(self, camera: Camera) -> CameraWork:
        plan, counts = self._plans.get(camera.id), self._counts.get(camera.id)
        if plan is None or counts is None or plan.mode == "off":
            return CameraWork(mode="off", every_s=camera.every_s, looked=1.0)
        hour = counts.last_hour
        looked = min(1.0, (hour.encoded + hour.lost) / hour.pictures) if hour.pictures >= _KNOWN_S else 1.0
        return CameraWork(mode=plan.mode, every_s=camera.every_s, looked=looked)


def check_economy(site: Site, bundle: Bundle) -> None:
    """Check that each camera's economy may decide.

    Raises:
        UnverifiedError: it has not passed its comparison.
        UsageError: the rule cannot decide with the bundle's names.
    """
    for economy in dict.fromkeys(economy_of(site, camera) for camera in site.camera):
        require_economy_gate(bundle, economy)


def check_names_may_change(site: Site) -> None:
    """Check that no camera's economy hangs on the present names.

    Raises:
        InputError: one does.
    """
    if auto := [camera.id for camera in site.camera if economy_of(site, camera).mode == "auto"]:
        raise InputError(
            f'the economy "auto" of camera {auto[0]!r} was compared with the present names: set economy = "exact" in '
            "the site file, change the names, and compare again with 'ovavel eval economy --write'"
        )
