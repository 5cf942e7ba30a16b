"""VGGSounder (Zverev et al., ICCV 2025): what is heard and what is seen in whole clips of VGGSound's test set.

    video_id,label,modality,background_music,static_image,voice_over

`video_id` is the id of a video and the second that the clip begins at, such as `dQw4w9WgXcQ_000030`; `modality` is A
(heard), V (seen) or AV (both). Names of classes may hold commas, in quotes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

from ovavel.eval.datasets.readers.lines import read_bytes
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.reporting.text import quoted

__all__ = ["Labels", "Modality", "parse_vggsounder", "read_vggsounder"]

COLUMNS = ("video_id", "label", "modality", "background_music", "static_image", "voice_over")
Modality = Literal["A", "V", "AV"]
Labels = Mapping[str, Mapping[str, Modality]]
"""Clip, as `video_id` → class → how it is there."""

_CLIP = re.compile(r"[^/\\\0]{11}_[0-9]{6}")


def read_vggsounder(path: Path) -> Labels:
    """Read `vggsounder.csv`, or a file of its form.

    Raises:
        DatasetError: it is missing or malformed; names file and line.
    """
    return parse_vggsounder(path, read_bytes(path, "VGGSounder's labels (vggsounder.csv)"))


def parse_vggsounder(path: Path, data: bytes) -> Labels:
    """Read the content of the file `path`. Raises DatasetError as `read_vggsounder`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path}, line {line}: not UTF-8 text; download the file again") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: dict[str, dict[str, Modality]] = {}
    try:
        if tuple(header := next(reader, [])) != COLUMNS:
            raise DatasetError(
                f"{path}, line 1: the columns are {quoted(','.join(header))} instead of {','.join(COLUMNS)}"
            )
        for row in reader:
            if not row:
                continue
            if problem := _problem(row, found):
                raise DatasetError(f"{path}, line {reader.line_num}: {problem}")
            found.setdefault(row[0], {})[row[1]] = cast("Modality", row[2])
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}") from error
    if not found:
        raise DatasetError(f"{path} holds no label")
    return found


def _problem(row: list[str], before: Labels) -> str:
    """Return the problem of a row, or an empty string."""
    if len(row) != len(COLUMNS):
        return f"{len(row)} values instead of {len(COLUMNS)} ({', '.join(COLUMNS)})"
    clip, label, modality, *flags = row
    if not _CLIP.fullmatch(clip):
        return f"{quoted(clip)} is not the id of a video with a second, such as dQw4w9WgXcQ_000030"
    if not label.strip() or not label.isprintable():
        return f"{quoted(label)} is not the name of a class"
    if modality not in ("A", "V", "AV"):
        return f"the modality is {quoted(modality)} instead of A, V or AV"
    if wrong := [flag for flag in flags if flag not in ("True", "False")]:
        return f"{quoted(wrong[0])} is neither True nor False"
    if label in before.get(clip, ()):
        return f"{clip} is labelled {quoted(label)} twice"
    return ""
