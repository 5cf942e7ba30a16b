"""Reads a site file; every error names the file, the field, and what it must be."""

from __future__ import annotations

import ipaddress
import tomllib
from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from ovavel.runtime.economy.settings import BUDGET, Economy
from ovavel.runtime.errors import InputError, UsageError
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.reporting.text import INVISIBLE, quoted
from ovavel.runtime.sources.devices import camera_device
from ovavel.runtime.system.files import not_regular
from ovavel.service.config.sinks import Jsonl, Mqtt, Sink, Webhook
from ovavel.service.config.site import Camera, Site
from ovavel.service.config.sources import check_source, device_file, is_deferred, is_encoded

__all__ = ["economy_of", "read_site", "read_token", "remarks", "rules_of", "site_schema", "split_listen", "zone_of"]

_LARGEST = 1 << 20
_LAST_PORT = 65_535
_SHORTEST_TOKEN = 32
_DECIDED_S = 15
"""Seconds after which an event of a second is over, decided on and asked for as a clip."""


def read_site(path: Path) -> Site:
    """Read and check the site file `path`. Paths in it that are relative count from its folder.

    Raises:
        InputError: it cannot be read, is not TOML, has unknown fields or invalid values.
    """
    try:
        if why := not_regular(path):
            raise InputError(f"{path} {why}; give a site file in TOML")
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a site file in TOML") from error
    if len(data) > _LARGEST:
        raise InputError(f"{path} has more than {_LARGEST >> 20} MiB, which no site file needs")
    try:
        values = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    try:
        site = msgspec.convert(values, Site)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}; 'ovavel serve --schema' lists the fields") from error
    _check(path, site)
    folder = path.resolve().parent
    cameras = tuple(msgspec.structs.replace(each, source=_source(folder, each.source)) for each in site.camera)
    return msgspec.structs.replace(
        site,
        bundle=str(folder / site.bundle),
        data=str(folder / site.data),
        token_file=site.token_file and str(folder / site.token_file),
        camera=cameras,
        sink=tuple(_beside(folder, each) for each in site.sink),
    )


def _beside(folder: Path, sink: Sink) -> Sink:
    """`sink` with paths that count from `folder`."""
    if isinstance(sink, Jsonl):
        return msgspec.structs.replace(sink, path=str(folder / sink.path))
    changes: dict[str, str] = {"address": _secret(folder, sink.address)}
    if isinstance(sink, Webhook):
        changes["secret"] = _secret(folder, sink.secret)
    if isinstance(sink, Mqtt | Webhook) and sink.ca_file:
        changes["ca_file"] = str(folder / sink.ca_file)
    return msgspec.structs.replace(sink, **changes)


def _secret(folder: Path, text: str) -> str:
    return f"@{folder / text.removeprefix('@')}" if text.startswith("@") else text


def _source(folder: Path, source: str) -> str:
    if "://" in source or is_deferred(source):
        return _secret(folder, source)
    return source if camera_device(source) is not None else str(folder / source)


def _check(path: Path, site: Site) -> None:
    for what, ids in (("cameras", [each.id for each in site.camera]), ("sinks", [each.id for each in site.sink])):
        for name, count in Counter(ids).items():
            if count > 1:
                raise InputError(f"{path}: {count} {what} are called {name!r}; give each an id of its own")
    for sink in site.sink:
        if unknown := set(sink.cameras) - {each.id for each in site.camera}:
            raise InputError(f"{path}: sink {sink.id!r}: there is no camera {min(unknown)!r}")
    if split_listen(site)[1] > _LAST_PORT:
        raise InputError(f"{path}: listen must end in a port up to {_LAST_PORT}, not {quoted(site.listen)}")
    for proxy in site.proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise InputError(f"{path}: proxies must be addresses or networks, not {quoted(proxy)}") from error
    needed_s = site.clip.pre_s + site.clip.post_s + _DECIDED_S
    if site.clip.ring_s < needed_s:
        raise InputError(
            f"{path}: clip.ring_s must be at least {needed_s:g}: pre_s, post_s, and {_DECIDED_S} s for the decision"
        )
    for where, zone in (("tz", site.tz), *((f"tz of camera {each.id!r}", each.tz) for each in site.camera)):
        if zone and zone not in available_timezones():
            raise InputError(f"{path}: {where} must be an IANA time zone such as Europe/Berlin, not {quoted(zone)}")
    for camera in site.camera:
        try:
            rules_of(camera)
        except UsageError as error:
            raise InputError(f"{path}: camera {camera.id!r}: {error}") from error
        if INVISIBLE.search(camera.name):
            raise InputError(
                f"{path}: camera {camera.id!r}: a name has visible characters only, not {quoted(camera.name)}"
            )
        if camera.transcode and not (site.media and camera.media):
            raise InputError(f"{path}: camera {camera.id!r}: transcode is for clips, and media = false keeps none")
        if camera.loop and is_deferred(camera.source):
            raise InputError(f"{path}: camera {camera.id!r}: loop is for a file, not for an address")
    _check_devices(path, site)


def _check_devices(path: Path, site: Site) -> None:
    first: dict[str, str] = {}
    for camera in site.camera:
        if is_deferred(camera.source):
            continue  # the capture process checks what is there
        try:
            check_source(camera.source, microphone=camera.microphone, sound=camera.sound, loop=camera.loop)
        except UsageError as error:
            raise InputError(f"{path}: camera {camera.id!r}: {error}") from error
        file = device_file(camera.source)
        if file is not None and (other := first.setdefault(file, camera.id)) != camera.id:
            raise InputError(
                f"{path}: cameras {other!r} and {camera.id!r} both watch {file}, which can be opened only once; "
                "leave one of them out"
            )


def remarks(site: Site) -> list[str]:
    """What the site file says that people may not expect of it."""
    found = [] if site.media else ["media = false: events are kept without pictures, sound and clips"]
    for camera in site.camera:
        if not camera.sound:
            found.append(f"camera {camera.id!r} has sound = false: nothing is seen and heard, so it has no events")
        if camera.mask and not is_encoded(camera) and camera.media and site.media:
            found.append(f"camera {camera.id!r} has a mask: its events have no clips without transcode = true")
    return found


def rules_of(camera: Camera) -> EventRules:
    """When events of this camera begin and end."""
    return EventRules(
        start_margin=camera.start_margin,
        keep_margin=camera.keep_margin,
        min_duration_s=camera.min_duration_s,
        bridge_s=camera.bridge_s,
    )


def economy_of(site: Site, camera: Camera) -> Economy:
    """What is asked for of this camera; the budget matters for the mode "auto" alone."""
    mode = camera.economy or site.economy
    own = site.economy_budget if camera.economy_budget is None else camera.economy_budget
    return Economy(mode=mode, budget=own if mode == "auto" else BUDGET)


def zone_of(site: Site, camera: Camera) -> ZoneInfo:
    """The time zone in which the camera's times are shown."""
    return ZoneInfo(camera.tz or site.tz)


def split_listen(site: Site) -> tuple[str, int]:
    """Host and port of `listen`."""
    host, _, port = site.listen.rpartition(":")
    return host.strip("[]"), int(port)


def read_token(site: Site) -> str | None:
    """The token that everyone must give; None where there is none.

    Raises:
        InputError: the file cannot be read, or its token is short.
    """
    if site.token_file is None:
        return None
    path = Path(site.token_file)
    try:
        token = path.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a file whose first line is the token") from error
    if len(token) < _SHORTEST_TOKEN:
        raise InputError(
            f"the token in {path} is shorter than {_SHORTEST_TOKEN} characters; make one: openssl rand -hex 32"
        )
    return token


def site_schema() -> bytes:
    """JSON schema of a site file, for editors."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Site)), indent=2) + b"\n"
