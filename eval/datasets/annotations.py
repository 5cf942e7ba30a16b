"""Reads and checks the annotation files of OV-AVEBench's layout."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ovavel.eval.datasets.clip_media import SEGMENTS
from ovavel.eval.datasets.dataset import SPLITS
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.reporting.text import quoted
from ovavel.runtime.system.files import not_regular

__all__ = [
    "LABELS",
    "Labels",
    "META",
    "Row",
    "SEEN_CLASSES",
    "SPLITS",
    "TOTAL_CLASSES",
    "TRAIN_RATIO",
    "class_names",
    "find_annotations",
    "ratio_files",
    "read_file",
    "read_rows",
]

META = "ovave_dataset_meta.csv"
LABELS = "released_ovavel_dataset_anno.json"
TOTAL_CLASSES = "ovave_total_close_open_categories.csv"
SEEN_CLASSES = "ovave_train_close_categories.csv"
TRAIN_RATIO = "ovave_trainratio{ratio:g}_meta.csv"
_VIDEO = re.compile(r"[^/\\\0.][^/\\\0]*")
_COLUMNS = ["split", "cls_name", "cls_type", "vid_name"]
Row = tuple[str, str, str, str]  # of META: split, class, "close" or "open", video


class Labels:
    """The labels file; errors that concern a single clip damage only that clip."""

    def __init__(self, data: bytes, path: Path) -> None:
        try:
            entries = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DatasetError(f"{path} is not valid JSON: {error}; download it again") from error
        if not isinstance(entries, dict):
            raise DatasetError(f"{path} is not a JSON object of videos")
        self._entries: dict[str, Any] = entries
        self._path = path
        self._parsed: dict[str, tuple[int, ...] | tuple[str, str]] = {}  # few different ones, each parsed once

    def of(self, row: Row) -> tuple[tuple[int, ...], tuple[str, str] | None]:
        """T labels of a row of META; none, and kind and message of the damage, where they cannot be used."""
        _, category, _, name = row
        labels = self._labels(name, category)
        if labels and isinstance(labels[0], str):
            return (), (labels[0], f"{self._path}: {name}: {labels[1]}")
        return labels, None

    def _labels(self, name: str, category: str) -> tuple[int, ...] | tuple[str, str]:
        """T labels, or kind and description of the damage."""
        entry = self._entries.get(name)
        if entry is None or (isinstance(entry, dict) and entry.get("label") is None):
            return "label missing", "there is no label"
        if not isinstance(entry, dict) or not isinstance(entry["label"], str | list):
            return "label unreadable", "the entry is not an object with a label"
        if entry.get("category", category) != category:
            return (
                "label of another class",
                f"it is labelled {quoted(entry['category'])}, but listed as {quoted(category)}",
            )
        text = entry["label"] if isinstance(entry["label"], str) else json.dumps(entry["label"])
        if text not in self._parsed:
            self._parsed[text] = _parse_label(text)
        return self._parsed[text]


def _parse_label(text: str) -> tuple[int, ...] | tuple[str, str]:
    try:
        values = msgspec.json.decode(text, type=list[int])
    except (msgspec.DecodeError, UnicodeEncodeError):
        values = [-1]
    if any(value not in (0, 1) for value in values):
        return "label unreadable", f"the label {quoted(text)} is not a list of 0 and 1"
    if len(values) != SEGMENTS:
        return "label of wrong length", f"the label has {len(values)} values instead of {SEGMENTS}"
    return tuple(values)


def find_annotations(root: Path, annotations: Path | str | None) -> Path:
    """Return the folder of the annotation files: `annotations`, or `root`/annotations, or `root`."""
    candidates = [Path(annotations)] if annotations is not None else [root / "annotations", root]
    if not candidates[-1].is_dir():
        raise DatasetError(f"there is no folder {candidates[-1]}; give the folder of the dataset or its annotations")
    for folder in candidates:
        if (folder / META).is_file():
            return folder
    places = " nor in ".join(str(folder) for folder in candidates)
    raise DatasetError(
        f"{META} is not in {places}; give the folder of OV-AVEBench's annotation files ({META}, {LABELS}, "
        f"{TOTAL_CLASSES}, {SEEN_CLASSES})"
    )


def read_file(path: Path) -> bytes:
    """Read a regular file."""
    try:
        if why := not_regular(path):
            raise DatasetError(f"{path} {why}, not a file; put the annotation file there")
        return path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing; put it beside {META}") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error


def ratio_files(folder: Path) -> list[tuple[str, float]]:
    """Names and ratios of the published choices of training clips."""
    matches = [re.fullmatch(r"ovave_trainratio(\d*\.\d+)_meta\.csv", path.name) for path in sorted(folder.iterdir())]
    return [(match[0], float(match[1])) for match in matches if match and 0 < float(match[1]) < 1]


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path}, line {line}: not UTF-8 text; download the file again") from error


def class_names(data: bytes, path: Path) -> tuple[str, ...]:
    """One class a line; lines may end as on Windows, and white space around a name means nothing."""
    names = [line.strip() for line in _text(data, path).rstrip().splitlines()]
    before = set[str]()
    for number, name in enumerate(names, 1):
        if not name or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            raise DatasetError(f"{path}, line {number}: {quoted(name)} is not a valid class (and folder) name")
        if name in before:
            raise DatasetError(f"{path}, line {number}: {quoted(name)} occurs twice")
        before.add(name)
    if len(names) < 2:
        raise DatasetError(f"{path} holds {len(names)} lines; at least one class and the background are needed")
    return tuple(names)


def read_rows(data: bytes, path: Path, names: Sequence[str], seen: Collection[str]) -> list[Row]:
    """The clips that a CSV file lists."""
    reader = csv.reader(_text(data, path).splitlines())
    rows: list[Row] = []
    lines: dict[str, int] = {}
    known, valid = frozenset(names[:-1]), set[tuple[str, ...]]()
    try:
        if (header := next(reader, [])) != _COLUMNS:
            raise DatasetError(
                f"{path}, line 1: the columns are {quoted(','.join(header))} instead of {quoted(','.join(_COLUMNS))}"
            )
        for row in reader:
            if not row:
                continue
            if tuple(row[:-1]) not in valid or not _VIDEO.fullmatch(row[-1]):
                if problem := _problem(row, known, seen):
                    raise DatasetError(f"{path}, line {reader.line_num}: {problem}")
                valid.add(tuple(row[:-1]))
            if row[3] in lines:
                raise DatasetError(f"{path}, line {reader.line_num}: {row[3]} is in line {lines[row[3]]} already")
            lines[row[3]] = reader.line_num
            rows.append((row[0], row[1], row[2], row[3]))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}") from error
    return rows


def _problem(row: Sequence[str], known: Collection[str], seen: Collection[str]) -> str:
    """Return the problem of a row of META, or an empty string."""
    if len(row) != len(_COLUMNS):
        return f"{len(row)} values instead of {len(_COLUMNS)}"
    split, category, kind, name = row
    if split not in SPLITS:
        return f"the split is {quoted(split)} instead of one of {', '.join(SPLITS)}"
    if category not in known:
        return f"the class {quoted(category)} is not among those of {TOTAL_CLASSES}"
    if kind not in ("close", "open"):
        return f"the class is said to be {quoted(kind)} instead of 'close' or 'open'"
    if (kind == "close") != (category in seen):
        return f"{quoted(category)} is said to be {quoted(kind)}, which contradicts {SEEN_CLASSES}"
    if split == "train" and kind == "open":
        return f"a training clip of the unseen class {quoted(category)}"
    if not _VIDEO.fullmatch(name):
        return f"{quoted(name)} is not a valid video (and file) name"
    return ""
