"""Remove secrets from addresses. Every text that may contain the address of a camera or stream passes through here.

It hides user name and password, even with slashes and @ in them, the whole query and fragment, and what follows a "="
in the path, where some cameras expect the password. A secret that is a plain part of the path looks like a name and is
shown.
"""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

__all__ = ["hide", "redacted", "remember", "without_known_secrets", "without_secrets"]

_HIDDEN = "***"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/*|/{2,}|)(.*)", re.DOTALL)
# In a sentence an address ends at white space, a quote or a bracket, not counting the sentence's punctuation.
_IN_TEXT = re.compile(
    r"""\b(?:[A-Za-z][A-Za-z0-9+.-]+:/+|(?:https?|rtsps?|rtmps?|srt|tcp|udp|ftps?):)[^\s/'"<>`][^\s'"<>`]*"""
    # without a scheme: `//user:password@host`, `user:password@host`
    r"""|(?<![\w/])//[^\s'"<>`]*@[^\s'"<>`]*"""
    r"""|(?<![^\s'"<>`()\[\]{}=,;|])[^\s'"<>`()\[\]{}=,;|:/@]*:[^\s'"<>`]+@[^\s'"<>`]*"""
)
_SHORTEST = 4
"""Parts of an address shorter than this are not searched for separately: they would match in any sentence."""


_known: dict[str, None] = {}
"""Addresses that are not on the command line but come from a file or the environment."""


def remember(address: str) -> None:
    """Make `redacted` hide `address` and its secrets in every text from now on."""
    _known[address] = None


_hidden: dict[str, None] = {}
"""Secrets that are no addresses, such as the key of an API."""


def hide(secret: str) -> None:
    """Make `redacted` hide `secret` in every text from now on."""
    _hidden[secret] = None


def without_secrets(address: str) -> str:
    """Return `address`, a URL or an attempt at one, in a form that may be shown and logged.

    A path is returned unchanged, unless it looks like `user:password@host`.
    """
    scheme, login, host, path, secret = _split(address)
    if scheme.lower() == "file:" or scheme.lower().startswith("file:/"):
        return address
    if not (scheme or login):
        return address
    if not scheme.strip("/") and scheme and not login:  # a path
        return address
    if scheme.endswith("//"):
        path = re.sub(r"=[^/]+", f"={_HIDDEN}", path)
    elif not login:
        return address
    return scheme + host + path + (secret[:1] + _HIDDEN if secret else "")


def redacted(text: str, address: str = "") -> str:
    """Return `text` with every address in it replaced by `without_secrets(address)`.

    `address`, or a part of it, is found in the text whatever characters it contains, and so is what `hide` was given.
    """
    return _IN_TEXT.sub(_shown, without_known_secrets(text, address))


def without_known_secrets(text: str, address: str = "") -> str:
    """Return `text` without the secrets of `address`, and without those that `remember` and `hide` were given.

    Unlike `redacted`, it leaves other addresses as they are.
    """
    for secret in _hidden:
        for form in dict.fromkeys((secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])):
            text = text.replace(form, _HIDDEN)
    for each in (address, *_known):
        shown = without_secrets(each)
        if shown != each:
            for form in (each, repr(each)[1:-1]):
                text = text.replace(form, shown)
            for part in _secrets(each):
                text = text.replace(part, _HIDDEN)
    return text


def _shown(found: re.Match[str]) -> str:
    address = found[0].rstrip(".,;:!?)]}")
    return without_secrets(address) + found[0][len(address) :]


def _split(address: str) -> tuple[str, str, str, str, str]:
    """Split into scheme with its slashes, login, host with port, path, and query with fragment."""
    matched = _ADDRESS.fullmatch(address)
    assert matched is not None
    scheme, rest = matched[1], matched[2]
    if not scheme.endswith("/") and ":" not in rest.partition("@")[0]:
        scheme, rest = "", address  # `user:password@host` has no scheme
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    login = ""
    if ":" in authority or (scheme and "@" in authority):
        # A password may contain anything, so the host begins after the last @.
        login, at, rest_after = rest.rpartition("@")
        rest = rest_after if at else rest
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path, secret = rest[len(host) :], ""
    mark = re.search(r"[?#]", path)
    if mark:
        path, secret = path[: mark.start()], path[mark.start() :]
    return scheme, login, host, path, secret


def _secrets(address: str) -> list[str]:
    """Return the secret parts of `address`, raw and decoded, longest first."""
    _, login, _, path, secret = _split(address)
    password = login.partition(":")[2]
    # A parser that takes a character in a secret for a delimiter reports a part of the secret.
    values = re.findall(r"=([^/]+)", path) + re.findall(r"=(?=([^&#]+))", secret) + re.findall(r"=(?=(.+))", secret)
    parts = {login, password, secret[1:], *re.split(r"[/?#@]", password), *values}
    parts |= {unquote(part) for part in parts}
    return sorted((part for part in parts if len(part) >= _SHORTEST), key=len, reverse=True)
