"""Asks an archive, `python -m ovavel.service.archive.child FD`, until all is said or the link is closed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.search.phrases import embed_phrases
from ovavel.runtime.archive.search.query import Question, Search
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import OvavelError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.reporting.text import one_line
from ovavel.service.archive.messages import Answered, Ended, Looking, Refused, ToChild
from ovavel.service.archive.trial import tried
from ovavel.service.link import Child, LinkClosed

__all__ = ["main"]

_NICE = 10
"""The cameras come first."""


def main(descriptor: str) -> int:
    """Serve the link with this descriptor."""
    link = Child.inherited(descriptor)
    os.nice(_NICE)
    with contextlib.suppress(LinkClosed):  # nobody wants to know any more
        try:
            asked: ToChild = link.receive(ToChild)
            for answer in _searched(asked) if isinstance(asked, Looking) else tried(asked):
                link.send(answer)
            link.send(Ended())
        except OvavelError as error:
            link.send(Refused(error=one_line(redacted(str(error)))))
    return 0


def _searched(looking: Looking) -> Iterator[Answered]:
    archive, bundle = Archive(Path(looking.archive)), Bundle.open(Path(looking.bundle))
    question = Question(
        texts=embed_phrases(bundle, looking.phrases, threads=1),
        without=embed_phrases(bundle, looking.without, threads=1) if looking.without else None,
        evidence=looking.evidence,
        cameras=looking.cameras,
        from_s=looking.from_s,
        to_s=looking.to_s,
        limit=looking.limit,
        pooled=looking.pooled,
    )
    search = Search(archive, bundle, question)
    for answer in search.answers():
        yield Answered(
            done=answer.done,
            days=answer.days,
            seconds=answer.seconds,
            last=answer.day is None,
            hits=answer.hits,
            note=search.note,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
