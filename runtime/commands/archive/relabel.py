"""`ovavel relabel`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ovavel.runtime.commands.archive.options import SpanOptions
from ovavel.runtime.commands.options import EventOptions, Maybe
from ovavel.runtime.errors import InputError, UsageError
from ovavel.runtime.reporting.text import shown_name
from ovavel.runtime.system.bounds import MOST_WORKERS, Meta

if TYPE_CHECKING:
    from ovavel.runtime.bundle.bundle import Bundle
    from ovavel.runtime.bundle.vocabulary import Vocabulary
    from ovavel.runtime.types import Event

__all__ = ["Relabel"]


@dataclass(frozen=True, kw_only=True)
class Relabel:
    """List the events of an archive as if other names, margins or another rule had been in force.

    Examples:
        ovavel relabel --archive archive --bundle imagebind --vocabulary names.txt
        ovavel relabel --archive archive --bundle imagebind --camera yard --start-margin 0.3 --format csv

    Nothing is encoded, so a day takes seconds. The events are those of a run with these settings; the archive rounds
    its vectors, and the summary says how many seconds that may have decided.
    """

    span: SpanOptions
    bundle: Path
    """Bundle that wrote the archive."""
    vocabulary: Maybe[Path] = None
    """File with one name per line; the names of the bundle by default. Other names need its text encoder."""
    fusion: Maybe[str] = None
    """Decision rule: positive, published or agreement; the bundle's own by default."""
    events: EventOptions = field(default_factory=EventOptions)
    """When an event begins and ends."""
    format: Literal["table", "json", "csv"] = "table"
    """How to print the events."""
    threads: Maybe[Annotated[int, Meta(ge=1, le=MOST_WORKERS)]] = None
    """Threads of the text encoder; as many as cores by default."""

    def run(self) -> int:
        """Decide again, and print the events."""
        from ovavel.runtime.archive.layout import model_of
        from ovavel.runtime.archive.reader import Archive
        from ovavel.runtime.archive.relabel import relabelled
        from ovavel.runtime.bundle.bundle import Bundle
        from ovavel.runtime.pipeline.rules.apply import live_rule
        from ovavel.runtime.reporting.console import ErrorConsole
        from ovavel.runtime.system.bars import shown_progress

        (first_s, last_s), rules = self.span.span_s, self.events.rules
        archive, bundle = Archive(self.span.archive), Bundle.open(self.bundle)
        model = model_of(bundle, pooled=self.span.pooled)
        listing = archive.listing(self.span.camera, model=model.id, from_s=first_s, to_s=last_s)
        days, left_out = listing.days, f"; {listing.left_out}" if listing.left_out else ""
        if not days:
            raise InputError(
                f"the archive {archive.root} has nothing of {model.name} of the bundle {bundle.path} at that time"
                f"{left_out}"
            )
        vocabulary, manifest = self._vocabulary(bundle), bundle.manifest
        texts = len(vocabulary.background_texts)
        rule = live_rule(manifest.fusion.decides, manifest.fusion.decision, self.fusion, vocabulary.names, texts)
        events: list[tuple[str, Event]] = []
        seconds = unsure = 0
        with shown_progress() as progress:
            for number, each in enumerate(
                relabelled(
                    days,
                    vocabulary,
                    rule,
                    rules=rules,
                    calibration=manifest.calibration_for(rule),
                    margins=manifest.calibration,
                    from_s=first_s,
                    to_s=last_s,
                )
            ):
                events += [(each.day.camera, event) for event in each.events]
                seconds, unsure = seconds + each.seconds, unsure + each.unsure
                progress("deciding", (number + 1) / len(days))
        self._print(events)
        ErrorConsole().print(
            f"{len(events)} events in {seconds} seconds; rounding may have decided {unsure} of them{left_out}",
            markup=False,
        )
        return 0

    def _vocabulary(self, bundle: Bundle) -> Vocabulary:
        from dataclasses import replace

        from ovavel.runtime.archive.search.phrases import embed_phrases
        from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
        from ovavel.runtime.pipeline.texts import read_names

        own = bundle.vocabulary
        if self.vocabulary is None:
            return own
        names = read_names(self.vocabulary, own.background)
        if not names:
            raise UsageError(f"{self.vocabulary} has no names; give one per line")
        texts = embed_phrases(bundle, names, threads=self.threads)
        return replace(
            own,
            names=(*texts.phrases, own.background),
            embeddings=TextEmbeddings.joined([texts.embeddings, own.embeddings[-1:]]),
        )

    def _print(self, events: Sequence[tuple[str, Event]]) -> None:
        from ovavel.runtime.archive.times import shown_time
        from ovavel.runtime.reporting.csv_table import csv_table
        from ovavel.runtime.sinks.as_json import to_json_bytes

        rows = [
            {
                "camera": camera,
                "start": shown_time(event.start_s),
                "end": shown_time(event.end_s),
                "label": event.label,
                "margin": round(event.peak_margin, 4),
                "probability": None if event.peak_probability is None else round(event.peak_probability, 4),
            }
            for camera, event in events
        ]
        if self.format == "json":
            print(to_json_bytes({"events": rows}, indent=2).decode())
        elif self.format == "csv":
            columns = ("camera", "start", "end", "label", "margin", "probability")
            values = [["" if value is None else value for value in row.values()] for row in rows]
            print(csv_table([columns, *values]).decode(), end="")
        else:
            for camera, event in events:
                probability = "" if event.peak_probability is None else f", probability {event.peak_probability:.2f}"
                print(
                    f"{shown_time(event.start_s)}  {event.end_s - event.start_s:4.0f} s  {shown_name(camera)}  "
                    f"{shown_name(event.label)}  (margin {event.peak_margin:.2f}{probability})"
                )
