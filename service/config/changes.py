"""What is different in a site file that was read again, and whether it can change while the service runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from ovavel.runtime.errors import InputError
from ovavel.service.config.read import economy_of
from ovavel.service.config.site import Camera, Site

if TYPE_CHECKING:
    from ovavel.runtime.bundle.vocabulary import Vocabulary

__all__ = ["FIXED", "Changes", "compare"]

FIXED = frozenset(
    {
        *("bundle", "data", "name", "listen", "token_file", "log", "base_path", "proxies"),
        *("device", "backend", "precision", "threads"),
    }
)
"""Fields of a site that are read at the start alone."""
_SHOWN: dict[str, Any] = {"name": "", "tz": "", "expected_offline": False}
"""Fields of a camera that concern people, and not what is decided on or kept."""


class Changes(Struct, frozen=True, kw_only=True):
    """Ids of cameras and sinks, and names of fields, in the order of the site file."""

    added: tuple[str, ...] = ()
    """Cameras that are watched from now on."""
    removed: tuple[str, ...] = ()
    """Cameras that are not watched any more."""
    restarted: tuple[str, ...] = ()
    """Cameras that are watched in another way: these alone are interrupted."""
    shown: tuple[str, ...] = ()
    """Cameras of which only what people see has changed, such as name and time zone."""
    opened: tuple[str, ...] = ()
    """Sinks that are new, or are another one than before."""
    closed: tuple[str, ...] = ()
    """Sinks that are there no more, or are another one than before."""
    fields: tuple[str, ...] = ()
    """Other fields of the site that changed."""
    names_added: tuple[str, ...] = ()
    """Names that the bundle's vocabulary has now."""
    names_removed: tuple[str, ...] = ()
    """Names that the bundle's vocabulary has no more."""
    vocabulary: str = ""
    """Version of the vocabulary, where that is another one."""

    @property
    def anything(self) -> bool:
        """Whether there is any change at all."""
        return any(getattr(self, each) for each in self.__struct_fields__)

    @property
    def text(self) -> str:
        """In one line for people."""
        names = {
            "added": "cameras added",
            "removed": "cameras removed",
            "restarted": "cameras restarted",
            "shown": "cameras shown differently",
            "opened": "sinks opened",
            "closed": "sinks closed",
            "fields": "fields changed",
        }
        found = [f"{what}: {', '.join(getattr(self, name))}" for name, what in names.items() if getattr(self, name)]
        words = [f"+{each}" for each in self.names_added] + [f"−{each}" for each in self.names_removed]
        if words or self.vocabulary:
            found.append(f"names: {', '.join(words) or 'in another order, or with other texts of the background'}")
        return "; ".join(found) or "nothing has changed"


def compare(before: Site, after: Site, was: Vocabulary | None = None, now: Vocabulary | None = None) -> Changes:
    """What has to be done so that a service that runs `before` runs `after`.

    Args:
        before: the site that runs.
        after: the site that is to run.
        was: the vocabulary that runs; None where it is not looked at.
        now: the vocabulary that is to run.

    Raises:
        InputError: a field has changed that is read at the start alone.
    """
    different = [name for name in Site.__struct_fields__ if getattr(before, name) != getattr(after, name)]
    if fixed := [name for name in different if name in FIXED]:
        raise InputError(
            f"{', '.join(fixed)} cannot change while the service runs; restart the service, or undo the change"
        )
    old, new = ({each.id: each for each in site.camera} for site in (before, after))
    both = [camera for camera in new if camera in old]
    restarted = [each for each in both if _watched(before, old[each]) != _watched(after, new[each])]
    shown = [each for each in both if each not in restarted and _shown(before, old[each]) != _shown(after, new[each])]
    sinks_before, sinks_after = ({each.id: each for each in site.sink} for site in (before, after))
    return Changes(
        added=_without(new, old),
        removed=_without(old, new),
        restarted=tuple(restarted),
        shown=tuple(shown),
        opened=tuple(each for each in sinks_after if sinks_after[each] != sinks_before.get(each)),
        closed=tuple(each for each in sinks_before if sinks_before[each] != sinks_after.get(each)),
        fields=tuple(name for name in different if name not in ("camera", "sink")),
        **(_named(was, now) if was and now and was.version != now.version else {}),
    )


def _named(was: Vocabulary, now: Vocabulary) -> dict[str, Any]:
    return {
        "names_added": _without(now.names, was.names),
        "names_removed": _without(was.names, now.names),
        "vocabulary": now.version,
    }


def _without(ids: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    known = set(others)
    return tuple(each for each in ids if each not in known)


def _watched(site: Site, camera: Camera) -> Any:
    """All that decides how a camera is captured, decided on, and kept."""
    media = site.media and camera.media
    own = msgspec.structs.replace(camera, **_SHOWN, media=media, economy=None, economy_budget=None)
    return own, economy_of(site, camera), site.clip if media else None


def _shown(site: Site, camera: Camera) -> Any:
    return camera.name, camera.tz or site.tz, camera.expected_offline
