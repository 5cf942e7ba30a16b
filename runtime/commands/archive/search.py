"""`ovavel search`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from ovavel.runtime.commands.archive.options import SpanOptions
from ovavel.runtime.commands.options import Many, Maybe
from ovavel.runtime.errors import UsageError
from ovavel.runtime.reporting.text import shown_name
from ovavel.runtime.system.bounds import MOST_WORKERS, Meta

if TYPE_CHECKING:
    from rich.table import Table

    from ovavel.runtime.archive.search.hits import Hit
    from ovavel.runtime.archive.search.query import Answer, Question
    from ovavel.runtime.bundle.bundle import Bundle
    from ovavel.runtime.reporting.console import OutputConsole

__all__ = ["Search"]


@dataclass(frozen=True, kw_only=True)
class Search:
    """Find when something was seen and heard, in any words, in an archive of recordings or cameras.

    Examples:
        ovavel search chainsaw --archive archive --bundle imagebind
        ovavel search "glass breaking" dog --archive archive --bundle imagebind --camera yard --from 2026-11-01
        ovavel search siren --not "car horn" --archive archive --bundle imagebind --format json
        ovavel search --like yard@2026-11-29T14:30:05 --archive archive --bundle imagebind

    The words need not be names of the bundle. The newest day is searched first, and on a terminal the best hits so far
    are shown at once; Ctrl-C ends the search with those. An event is a hit that live watching with these words among
    the names would have reported.
    """

    phrases: Positional[Many[str]] = ()
    """What to look for; quote phrases with spaces. Each is ranked by itself."""
    span: SpanOptions
    bundle: Path
    """Bundle that wrote the archive, with its text encoder."""
    not_: Annotated[tuple[str, ...], arg(name="not", help_behavior_hint="")] = ()
    """Phrases that must fit less."""
    like: Maybe[str] = None
    """CAMERA@TIME: find seconds that look and sound like this one, in the place of phrases."""
    seen_only: bool = False
    """Rank by what was seen alone."""
    heard_only: bool = False
    """Rank by what was heard alone."""
    limit: Annotated[int, Meta(ge=1, le=2000)] = 20
    """Hits for each phrase, at most."""
    format: Literal["table", "json", "csv"] = "table"
    """How to print them."""
    threads: Maybe[Annotated[int, Meta(ge=1, le=MOST_WORKERS)]] = None
    """Threads of the text encoder; as many as cores by default."""

    def run(self) -> int:
        """Search, and print the hits. Returns 130 if it was interrupted."""
        from ovavel.runtime.archive.reader import Archive
        from ovavel.runtime.archive.search.query import Search as Searching
        from ovavel.runtime.bundle.bundle import Bundle
        from ovavel.runtime.reporting.console import ErrorConsole, OutputConsole
        from ovavel.runtime.system.interrupt import terminated_as_interrupted

        if bool(self.phrases) == bool(self.like):
            raise UsageError("which phrases? Give some, or --like CAMERA@TIME in their place")
        if self.like and self.not_:
            raise UsageError("--not is for phrases; leave it out with --like")
        if self.seen_only and self.heard_only:
            raise UsageError("--seen-only and --heard-only together leave nothing; give one of them")
        self.span.span_s  # noqa: B018 - refused before anything is opened
        archive, bundle = Archive(self.span.archive), Bundle.open(self.bundle)
        errors = ErrorConsole()
        with terminated_as_interrupted():
            searching = Searching(archive, bundle, self._question(bundle))
            if searching.note:
                errors.print(searching.note, markup=False)
            console = OutputConsole(highlight=False)
            found = _Found(self.limit)
            interrupted = self._follow(searching.answers(), found, console)
        hits = found.hits
        if self.format == "json":
            print(_to_json(found, complete=not interrupted))
        elif self.format == "csv":
            print(_to_csv(hits), end="")
        else:
            console.print(_table(hits))
            console.print(found.summary, markup=False, soft_wrap=True)
        if interrupted:
            errors.print("ovavel: interrupted; these are the best hits up to then", markup=False)
        return 130 if interrupted else 0

    def _question(self, bundle: Bundle) -> Question:
        from ovavel.runtime.archive.search.phrases import embed_phrases
        from ovavel.runtime.archive.search.query import Question
        from ovavel.runtime.archive.times import camera_at

        first_s, last_s = self.span.span_s
        return Question(
            texts=embed_phrases(bundle, self.phrases, threads=self.threads) if self.phrases else None,
            without=embed_phrases(bundle, self.not_, threads=self.threads) if self.not_ else None,
            like=camera_at(self.like, "--like") if self.like else None,
            evidence="seen" if self.seen_only else "heard" if self.heard_only else "both",
            cameras=self.span.camera,
            from_s=first_s,
            to_s=last_s,
            limit=self.limit,
            pooled=self.span.pooled,
        )

    def _follow(self, answers: Iterator[Answer], found: _Found, console: OutputConsole) -> bool:
        """Take the answers in, and show them on a terminal. Returns whether that was interrupted."""
        from contextlib import closing, nullcontext

        from rich.live import Live

        shown = Live(console=console, transient=True) if console.is_terminal and self.format == "table" else None
        try:
            with closing(answers), shown or nullcontext():  # type: ignore[type-var]
                for answer in answers:
                    found.take(answer)
                    if shown:
                        shown.update(_table(found.hits, found.summary))
        except KeyboardInterrupt:
            return True
        return False


class _Found:
    """The best hits so far."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.hits: list[Hit] = []
        self.summary = "nothing was searched yet"
        self.seconds = 0

    def take(self, answer: Answer) -> None:
        """Take in the hits of a day, or those of all days in their place."""
        merged = list(answer.hits) if answer.day is None else [*self.hits, *answer.hits]
        merged.sort(key=lambda hit: -hit.score)
        count: Counter[str] = Counter()
        self.hits = []
        for hit in merged:
            count[hit.phrase] += 1
            if count[hit.phrase] <= self._limit:
                self.hits.append(hit)
        self.seconds = answer.seconds
        self.summary = (
            f"{answer.seconds} seconds searched in {answer.done} of {answer.days} days of cameras; the vectors of "
            f"{answer.compared} were compared"
        )


def _table(hits: Sequence[Hit], title: str = "") -> Table:
    from rich.markup import escape
    from rich.table import Table

    from ovavel.runtime.archive.times import shown_time

    several = len({hit.phrase for hit in hits}) > 1
    table = Table(
        *(["phrase"] if several else []),
        "camera",
        "from",
        "seconds",
        "score",
        "seen",
        "heard",
        "event",
        title=title or None,
    )
    for hit in hits:
        event = "" if not hit.event else "yes" if hit.probability is None else f"yes, {hit.probability:.2f}"
        other = hit.label if not hit.event else ""
        table.add_row(
            *([escape(shown_name(hit.phrase))] if several else []),
            escape(shown_name(hit.camera)),
            shown_time(hit.start_s),
            f"{hit.end_s - hit.start_s:.0f}",
            f"{hit.score:.3f}",
            _number(hit.seen),
            _number(hit.heard),
            event or escape(f"no: {shown_name(other)}"),
        )
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


_COLUMNS = (
    "phrase",
    "camera",
    "start",
    "end",
    "peak",
    "score",
    "seen",
    "heard",
    "event",
    "label",
    "margin",
    "probability",
)


def _row(hit: Hit) -> dict[str, object]:
    """The fields of `_COLUMNS`; times in ISO 8601, numbers rounded."""
    from ovavel.runtime.archive.times import shown_time

    row = asdict(hit)
    times = {name: shown_time(row.pop(f"{name}_s")) for name in ("start", "end", "peak")}
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
    return {name: (times | rounded)[name] for name in _COLUMNS}


def _to_json(found: _Found, *, complete: bool) -> str:
    from ovavel.runtime.sinks.as_json import to_json_bytes

    document = {"complete": complete, "seconds": found.seconds, "hits": [_row(hit) for hit in found.hits]}
    return to_json_bytes(document, indent=2).decode()


def _to_csv(hits: Sequence[Hit]) -> str:
    from ovavel.runtime.reporting.csv_table import csv_table

    rows = [["" if value is None else value for value in _row(hit).values()] for hit in hits]
    return csv_table([_COLUMNS, *rows]).decode()
