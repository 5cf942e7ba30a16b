"""Read a model's answer: as JSON, or else in the forms that models answer in when they do not keep to it.

The first rung that reads the whole answer counts: strict JSON, the first balanced JSON object inside other text, ranges
("0-3: 5"), lines. Each list has exactly one number of the list of classes, or -1, for each second; anything else is
invalid as a whole, and nothing is guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from ovavel.eval.accuracy.llm.prompt import LISTS, NOTHING, Question
from ovavel.eval.datasets.clip_media import SEGMENTS

__all__ = ["RUNGS", "Parsed", "parse"]

Rung = Literal["json", "embedded", "ranges", "lines", "invalid"]
RUNGS: tuple[Rung, ...] = get_args(Rung)

Numbers: TypeAlias = tuple[int, ...]
"""T numbers of the list of classes, or `NOTHING`."""
_Lists: TypeAlias = dict[str, Numbers]

_LONGEST = 50_000
"""Characters of an answer that are searched; the form that is asked for takes less than 200."""
_MOST_OBJECTS = 200
_THINKING_ENDS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_THINKING = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_TRAILING_COMMA = re.compile(r",(\s*[\]}])")
_WHOLE = re.compile(r"([+-]?[0-9]{1,20})(?:\.0{1,20})?")
_NONE = frozenset({"", "none", "nothing", "null", "n/a", "background"})
_HEADING = re.compile(r"(?:^|[\n;,|{(.])[\s*#>\-\"'`]{0,20}(seen|heard)[\"'*`]{0,4}[ \t]{0,4}[:=]", re.IGNORECASE)
_RANGE = re.compile(
    r"(?:seconds?[ \t]{0,4})?\b([0-9]{1,3})[ \t]{0,4}(?:(?:-|to)[ \t]{0,4}([0-9]{1,3}))?[\"'`]?[ \t]{0,4}(?:[:=]|->|→)"
    r"[ \t]{0,4}[\"'`]?(-?[0-9]{1,20}\b|none\b|nothing\b|null\b)",
    re.IGNORECASE,
)
_SECOND = re.compile(r"\W{0,20}(?:seconds?[ \t]{0,4})?([0-9]{1,3})\b(?![ \t]{0,4}-[ \t]{0,4}[0-9])(.*)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.-])-?[0-9]{1,20}(?![\w.])")


class Parsed(NamedTuple):
    """What an answer says, and how it was read."""

    rung: Rung
    seen: Numbers | None
    """T numbers of the list of classes, or `NOTHING`; None where it was not asked for, or is invalid."""
    heard: Numbers | None
    """Likewise."""


def parse(text: str, question: Question, classes: int) -> Parsed:
    """Read the answer `text` to `question`, with `classes` numbered from 0."""
    names = LISTS[question]
    readers: tuple[tuple[Rung, Callable[[str], _Lists | None]], ...] = (
        ("json", lambda said: _strict(said, names)),
        ("embedded", lambda said: _embedded(said, names)),
        ("ranges", lambda said: _by_sections(said, names, _ranges)),
        ("lines", lambda said: _by_sections(said, names, _ten_numbers) or _by_seconds(said, names)),
    )
    said = text
    for rung, read in readers:
        if rung == "embedded":
            said = _after_thinking(text)[:_LONGEST].replace("−", "-").replace("–", "-")
        found = read(said)
        if found and all(_in_range(found[name], classes) for name in names):
            return Parsed(rung, found.get("seen"), found.get("heard"))
    return Parsed("invalid", None, None)


def _in_range(numbers: Numbers, classes: int) -> bool:
    return len(numbers) == SEGMENTS and all(NOTHING <= number < classes for number in numbers)


def _after_thinking(text: str) -> str:
    """Drop what a model wrote to itself. Blocks may be nested, and a chat template may have opened the first."""
    rest = _THINKING_ENDS.split(text)[-1]
    return _THINKING.split(rest)[0]


def _strict(text: str, names: tuple[str, ...]) -> _Lists | None:
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    found = {
        name: tuple(given)
        for name in names
        if isinstance(given := value.get(name), list) and all(type(item) is int for item in given)
    }
    return found if len(found) == len(names) else None


def _embedded(text: str, names: tuple[str, ...]) -> _Lists | None:
    """The first object that holds all lists; numbers may be strings, and commas may trail."""
    text = _TRAILING_COMMA.sub(r"\1", text)
    start = -1
    for _ in range(_MOST_OBJECTS):
        start = text.find("{", start + 1)
        if start < 0:
            break
        try:
            value, _ = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        given = {key.strip().lower(): each for key, each in value.items()}
        found = {name: numbers for name in names if (numbers := _numbers(given.get(name))) is not None}
        if len(given) == len(value) and len(found) == len(names):
            return found
    return None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # nobody knows which one is meant
        raise ValueError("a name occurs twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct)


def _numbers(value: Any) -> Numbers | None:
    if not isinstance(value, list):
        return None
    found = tuple(number for each in value if (number := _number(each)) is not None)
    return found if len(found) == len(value) else None


def _number(value: Any) -> int | None:
    if value is None:
        return NOTHING
    if isinstance(value, str):
        if value.strip().lower() in _NONE:
            return NOTHING
        matched = _WHOLE.fullmatch(value.strip())
        return int(matched[1]) if matched else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if type(value) is int else None


def _by_sections(text: str, names: tuple[str, ...], read: Callable[[str], Numbers | None]) -> _Lists | None:
    """Read what follows `seen:` and `heard:`, each of which occurs once."""
    headings = list(_HEADING.finditer(text))
    ends = [each.start() for each in headings[1:]] + [len(text)] if headings else []
    sections: dict[str, str] = {}
    for heading, end in zip(headings, ends, strict=True):
        name = heading[1].lower()
        if name in sections:
            return None
        sections[name] = text[heading.end() : end]
    found = {name: numbers for name in names if name in sections and (numbers := read(sections[name])) is not None}
    return found if len(found) == len(names) else None


def _ranges(section: str) -> Numbers | None:
    """Seconds with their class, such as "0-3: 5, 7: 2"; the others have none. No second has two classes."""
    said = section.strip(" \t\r\n*`'\",;.[]{}()|")
    if said.lower() in _NONE - {""} or said == str(NOTHING):
        return (NOTHING,) * SEGMENTS
    found: dict[int, int] = {}
    for first, last, number in _RANGE.findall(section):
        low, high = int(first), int(last or first)
        value = NOTHING if number.isalpha() else int(number)
        if not low <= high < SEGMENTS:
            return None
        for second in range(low, high + 1):
            if found.setdefault(second, value) != value:
                return None
    if not found or re.search("[0-9]", _RANGE.sub("", section)):  # a number that was not understood
        return None
    return tuple(found.get(second, NOTHING) for second in range(SEGMENTS))


def _ten_numbers(section: str) -> Numbers | None:
    """Ten numbers on a line, or between brackets."""
    section = section.lstrip(" \t*`\"'\r\n")
    bracketed = section.startswith(("[", "("))
    line = re.split(r"[\])]" if bracketed else r"[\r\n]", section, maxsplit=1)[0]
    numbers = _NUMBER.findall(line)
    if len(numbers) != SEGMENTS or re.search("[0-9]", _NUMBER.sub("", line)):
        return None
    return tuple(map(int, numbers))


def _by_seconds(text: str, names: tuple[str, ...]) -> _Lists | None:
    """A line for each second, such as "second 3: seen 5, heard -1" or "| 3 | 5 | -1 |"."""
    found: dict[int, Mapping[str, int]] = {}
    for line in text.splitlines():
        matched = _SECOND.fullmatch(line.strip()[:500])
        if not matched:
            continue
        second, rest = int(matched[1]), matched[2]
        numbers = _NUMBER.findall(rest)
        if second in found or second >= SEGMENTS or len(numbers) != len(names):
            return None
        lower = rest.lower()
        swapped = len(names) > 1 and -1 < lower.find(names[1]) < lower.find(names[0])
        found[second] = dict(zip(reversed(names) if swapped else names, map(int, numbers), strict=True))
    if len(found) != SEGMENTS:
        return None
    return {name: tuple(found[second][name] for second in range(SEGMENTS)) for name in names}
