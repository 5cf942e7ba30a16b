"""Restrict what FFmpeg opens for a path or an address: protocols, formats, hosts, and picture size.

By itself, FFmpeg opens whatever an address, a redirect or a playlist names. Here an address must have one of a few
schemes, and FFmpeg may only use the protocols for that scheme: no wrappers (`cache:`, `concat:`, `subfile:`, `data:`).
A public address must not lead into the local network unless allowed: redirects are followed here one by one, and
playlists, whose entries FFmpeg opens automatically, are refused. docs/threat-model.md lists what this does not cover.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from base64 import b64encode
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit, urlunsplit

from ovavel.runtime.errors import InputError, MediaError, UsageError
from ovavel.runtime.reporting.redaction import remember, without_secrets
from ovavel.runtime.reporting.text import INVISIBLE
from ovavel.runtime.system.files import not_regular

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

    from av.container import InputContainer

__all__ = [
    "Access",
    "address_of",
    "check_scheme",
    "is_network",
    "open_container",
    "padded",
    "pixel_limit",
    "protocols_of",
    "shown_url",
]

OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 2.5
"""Time-out of a network read."""
MOST_REDIRECTS = 8
MAX_PIXELS = 8192 * 8192
"""Of a picture, unless `OVAVEL_MAX_PIXELS` or an option says otherwise: twice what 8K video has."""
LONGEST_ADDRESS = 65_536
"""Largest size in bytes of a file that contains an address."""

_WEB = ("http", "https")
_PROTOCOLS = {
    **dict.fromkeys(_WEB, "http,https,tcp,tls"),
    **dict.fromkeys(("rtsp", "rtsps"), "rtsp,rtp,udp,tcp,tls"),
    "rtp": "rtp,udp",
    "udp": "udp",
    "tcp": "tcp",
    "tls": "tls,tcp",
}
"""Scheme of an address → FFmpeg protocols that it may use."""
_LISTS = frozenset({"hls", "dash"})
"""Formats that contain addresses and are allowed on a trusted network."""
_SESSIONS = {"rtsp": "rtsp", "rtsps": "rtsp", "rtp": "rtp"}
"""Scheme of an address → the format that FFmpeg reads it with, allowed for that address alone."""
_LEADS_ELSEWHERE = _LISTS | {
    *("concat", "sdp", "rtsp", "rtp", "sap", "imf", "vobsub", "webm_dash_manifest", "avisynth"),
    *("vapoursynth", "lavfi"),
}
"""Formats that make FFmpeg open other files or addresses, or run scripts."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NEVER_PUBLIC = tuple(map(ipaddress.IPv6Network, ("::/96", "64:ff9b:1::/48", "fec0::/10")))
"""IPv4-in-IPv6 and site-local addresses, which some Python versions classify as public."""


def pixel_limit() -> int:
    """How many pixels a picture may have: `OVAVEL_MAX_PIXELS`, or `MAX_PIXELS`.

    Raises:
        UsageError: the variable is no positive whole number.
    """
    text = os.environ.get("OVAVEL_MAX_PIXELS", "")
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise UsageError(f"OVAVEL_MAX_PIXELS is {text!r}; it takes a whole number from 1 to below 2147483648")
    return int(text)


def padded(pixels: int) -> int:
    """The limit to set in FFmpeg for one of `pixels`: it counts the columns that it adds to a picture, 63 at most."""
    return pixels + 64 * 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How much a source is trusted."""

    allow_private: bool = False
    """Whether a public address may lead to loopback, link-local and private ones."""
    max_pixels: int = field(default_factory=pixel_limit)
    """Of a picture; a larger one is refused before it is decoded."""


def is_network(url: str) -> bool:
    """Whether `url` has a scheme other than file: (`rtsp://…`, `http://…`, `udp://…`)."""
    return _scheme(url) not in ("", "file")


def shown_url(url: str) -> str:
    """Return a file path unchanged, and a URL without its secrets."""
    return without_secrets(url) if is_network(url) else url


def address_of(text: str) -> str:
    """Resolve `text` from the command line, see `_address_of`; secrets read this way never appear in messages."""
    address = _address_of(text)
    if address != text:
        remember(address)
    return address


def _address_of(text: str) -> str:
    """Resolve `text` from the command line: `@FILE` is the first line of a file, `env:NAME` a variable, else itself.

    Every user of the machine can read command lines, and so a password in an address.

    Raises:
        InputError: the file cannot be read, or its first line is empty.
        UsageError: there is no such variable, or it is empty.
    """
    if text.startswith("env:"):
        name = text.removeprefix("env:")
        if not os.environ.get(name, "").strip():
            raise UsageError(f"{text}: the variable {name} is not set; set it to the address and export it")
        return os.environ[name].strip()
    if not text.startswith("@"):
        return text
    path = Path(text.removeprefix("@"))
    try:
        if why := not_regular(path):
            raise InputError(f"{path} {why}; {text} means a file whose first line is an address")
        with path.open("rb") as file:
            lines = file.read(LONGEST_ADDRESS).decode().splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"the address in {path} cannot be read: {reason}; check the path after the @") from None
    if not lines or not lines[0].strip():
        raise InputError(f"the first line of {path} is empty; put the address there")
    return lines[0].strip()


def check_scheme(url: str) -> str:
    """Return the scheme of the address `url` in lower case.

    Raises:
        UsageError: ovavel does not open this scheme, or the address contains invalid characters.
    """
    scheme = _scheme(url)
    if scheme not in _PROTOCOLS:
        raise UsageError(
            f"{without_secrets(url)}: {scheme}: addresses are not supported; choose one of "
            f"{', '.join(_PROTOCOLS)}, or give a file"
        )
    if INVISIBLE.search(url) or " " in url:
        raise UsageError(
            f"{without_secrets(url)}: an address cannot contain spaces or invisible characters; write them as %20"
        )
    return scheme


def check_file(path: str) -> str:
    """Return the path of a non-empty regular file. Raises MediaError for anything else."""
    path = re.sub("^file://", "", path, flags=re.IGNORECASE)
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise MediaError(f"there is no file {without_secrets(path)}; check the path") from None
    except (OSError, ValueError) as error:
        raise MediaError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{path} is a folder; give a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path} is not a regular file; cameras are opened with `ovavel live --camera`")
    if status.st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes)")
    return path


def open_container(url: str, access: Access) -> InputContainer:
    """Open a file or an address with FFmpeg and find its streams.

    Raises:
        UsageError: the scheme of the address is not supported.
        MediaError: there is no such file, or the address leads to a forbidden one.
        av.error.FFmpegError, OSError, ValueError: FFmpeg cannot open it. The text may hold secrets.
    """
    from av.error import FFmpegError

    if not is_network(url):
        return _open(f"file:{check_file(url)}", access, protocols="file", formats=_formats(lists=False))
    scheme = check_scheme(url)
    url = scheme + url[len(scheme) :]  # FFmpeg knows them in lower case only
    web = scheme in _WEB
    # One private address among public ones proves nothing: the owner of a name chooses its addresses.
    found = _addresses(url) if web and not access.allow_private else []
    free = access.allow_private or not web or (bool(found) and all(map(_is_private, found)))
    options = {"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {} if free else {"max_redirects": "0"}
    formats = ",".join(filter(None, (_formats(lists=web and free), _SESSIONS.get(scheme))))
    where = url
    for _ in range(MOST_REDIRECTS + 1):
        try:
            return _open(where, access, protocols=_protocols(scheme), formats=formats, **options)
        except FFmpegError:
            target = None if free else _redirect(where)
            if target is None:
                raise
        _check_target(target, url)
        where = target
    raise MediaError(f"{without_secrets(url)} is redirected more than {MOST_REDIRECTS} times; check the address")


def _open(url: str, access: Access, *, protocols: str, formats: str, **options: str) -> InputContainer:
    import av

    # a name with %d in it is the name of one picture, not of many
    allowed = {"protocol_whitelist": protocols, "format_whitelist": formats, "pattern_type": "none", **options}
    timeout = (OPEN_TIMEOUT_S, READ_TIMEOUT_S) if is_network(url) else None
    # FFmpeg decodes the first pictures of some formats to see what they are
    most = {"max_pixels": str(padded(access.max_pixels))}
    return av.open(url, options=most, container_options=allowed, timeout=timeout)


def _scheme(url: str) -> str:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", url)
    return found[1].lower() if found else ""


def protocols_of(url: str) -> str:
    """The protocols that FFmpeg may use for `url`, as its option takes them; of a path, files alone."""
    return _protocols(_scheme(url)) if is_network(url) else "file"


def _protocols(scheme: str) -> str:
    """Return the protocols that FFmpeg may use for `scheme`; https over a proxy has its own protocol."""
    proxied = scheme in _WEB and os.environ.get("http_proxy")
    return _PROTOCOLS[scheme] + (",httpproxy" if proxied else "")


@cache
def _formats(*, lists: bool) -> str:
    """Return FFmpeg's names of the allowed formats; with `lists`, including those that contain addresses."""
    import av

    refused = _LEADS_ELSEWHERE - _LISTS if lists else _LEADS_ELSEWHERE
    return ",".join(sorted(name for name in av.formats_available if not refused & set(name.split(","))))


def _redirect(url: str) -> str | None:
    """Return the redirect target of `url`; None if there is none or the server does not answer."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request

    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = Request(urlunsplit(parts._replace(netloc=host, fragment="")))
    if login:
        request.add_header("Authorization", f"Basic {b64encode(unquote_to_bytes(login)).decode()}")
    try:
        _opener().open(request, timeout=READ_TIMEOUT_S).close()
    except HTTPError as error:
        error.close()
        target = error.headers.get("Location")
        return urljoin(url, target) if target and 300 <= error.code < 400 else None
    except (OSError, ValueError, HTTPException):
        pass
    return None


@cache
def _opener() -> OpenerDirector:
    """Return an opener that does not follow redirects or check certificates, like FFmpeg: cameras sign their own."""
    import ssl
    from urllib.request import HTTPRedirectHandler, HTTPSHandler, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return build_opener(Stay, HTTPSHandler(context=context))


def _check_target(target: str, url: str) -> None:
    """Raise MediaError if the redirect target of `url` must not be opened."""
    redirect = f"{without_secrets(url)} is redirected to {without_secrets(target)}"
    if _scheme(target) not in _WEB or INVISIBLE.search(target) or " " in target:
        raise MediaError(f"{redirect}, which is not an allowed address; check the address")
    found = _addresses(target)
    if not found:
        raise MediaError(f"{redirect}, whose host name is unknown; check the address")
    if any(map(_is_private, found)):
        raise MediaError(
            f"{redirect}, an address of this machine or a local network, to which a public one must not redirect; "
            "give that address directly, or --allow-private if you trust the server"
        )


def _addresses(url: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Resolve the host of `url`; empty if its name is unknown."""
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname, None, type=socket.SOCK_STREAM)
        return [ipaddress.ip_address(each[4][0]) for each in found]
    except (OSError, ValueError):
        return []


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether `address` is not on the public internet: loopback, link-local, private, shared or multicast."""
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inside is not None:
            return _is_private(inside)
        if any(address in network for network in _NEVER_PUBLIC):
            return True
    return not address.is_global or address.is_multicast
