"""What `ovavel localize` writes: tables, subtitles, a picture and a page."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ovavel.runtime.errors import UsageError
from ovavel.runtime.reporting.text import INVISIBLE
from ovavel.runtime.results.document import Document, parse_json, read_json, to_json
from ovavel.runtime.results.html import to_html
from ovavel.runtime.results.localization import Localization
from ovavel.runtime.results.subtitles import to_srt, to_vtt
from ovavel.runtime.results.svg import to_svg
from ovavel.runtime.results.tables import to_audacity, to_csv
from ovavel.runtime.results.thumbnails import thumbnail
from ovavel.runtime.system.files import atomic_write, output_error

__all__ = [
    "FORMATS",
    "Document",
    "Localization",
    "parse_json",
    "read_json",
    "render_results",
    "result_paths",
    "thumbnail",
    "write_results",
]

_WRITERS: dict[str, tuple[str, Callable[[Localization], bytes]]] = {
    "json": ("json", to_json),
    "csv": ("csv", to_csv),
    "srt": ("srt", to_srt),
    "vtt": ("vtt", to_vtt),
    "audacity": ("txt", to_audacity),
    "svg": ("svg", to_svg),
    "html": ("html", to_html),
}

_AWKWARD = re.compile(r'[<>:"|?*\\]+')

FORMATS = tuple(_WRITERS)
"""Names of the formats that can be written."""


def result_paths(source: Path | str, out_dir: Path, formats: Iterable[str]) -> list[Path]:
    """Give the files that `write_results` would write: `clip.mp4` becomes `clip.mp4.ovavel.json` and so on.

    The suffix of the recording stays, so that two recordings of one folder never share a name.

    Raises:
        UsageError: there is no such format.
    """
    wanted = list(dict.fromkeys(formats))
    unknown = [name for name in wanted if name not in _WRITERS]
    if unknown:
        raise UsageError(f"there is no output format {unknown[0]!r}; choose from {', '.join(FORMATS)}")
    return [out_dir / f"{_plain_name(str(source))}.ovavel.{_WRITERS[name][0]}" for name in wanted]


def _plain_name(source: str) -> str:
    """The last part of a path or URL, short and plain enough for any file system; two names stay two."""
    name = source.rstrip("/").rpartition("/")[2]
    plain = _AWKWARD.sub("_", INVISIBLE.sub("_", name)).strip(". ")
    # File systems count bytes: 255 at most, of which the suffix needs some.
    plain = plain.encode()[:200].decode(errors="ignore") or "recording"
    if plain == name:
        return plain
    # A name that had to change might now be that of another recording. URLs may differ before their last part.
    whole = source if "://" in source else name
    return f"{plain}.{hashlib.sha256(whole.encode(errors='surrogateescape')).hexdigest()[:8]}"


def render_results(localization: Localization, formats: Iterable[str]) -> dict[str, bytes]:
    """The content of each file that `write_results` would write, by name, in the order of `formats`.

    Raises:
        UsageError: there is no such format.
    """
    wanted = list(dict.fromkeys(formats))
    paths = result_paths(localization.info.source, Path(), wanted)
    return {path.name: _WRITERS[name][1](localization) for name, path in zip(wanted, paths, strict=True)}


def write_results(localization: Localization, out_dir: Path, formats: Iterable[str]) -> list[Path]:
    """Write the `result_paths` of a recording, and make `out_dir` if need be.

    Returns:
        The files, in the order of `formats`. Each is whole or not there.

    Raises:
        UsageError: there is no such format; nothing is written.
        OutputError: a file could not be written.
    """
    wanted = list(dict.fromkeys(formats))
    paths = result_paths(localization.info.source, out_dir, wanted)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out_dir, error) from error
    for name, path in zip(wanted, paths, strict=True):
        atomic_write(path, _WRITERS[name][1](localization))
    return paths
