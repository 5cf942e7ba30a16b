"""`ovavel vocab try`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from ovavel.runtime.commands.localize import find_media, print_unreadable
from ovavel.runtime.commands.options import ChannelFlag, Many, Maybe, VerifiedEngineOptions, parse_channel
from ovavel.runtime.errors import MediaError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from ovavel.eval.phrases.trial import Recording, Trial
    from ovavel.runtime.backends import Backend, BackendInfo
    from ovavel.runtime.bundle.bundle import Bundle
    from ovavel.runtime.bundle.vocabulary import Vocabulary
    from ovavel.runtime.pipeline.channels import Channel

__all__ = ["Try"]


@dataclass(frozen=True, kw_only=True)
class Try:
    """Score phrases on recordings and rank them, to choose names that work.

    Examples:
        ovavel vocab try dog.mp4 --bundle imagebind --phrases "dog barking" "a barking dog"
        ovavel vocab try dog.mp4 park.mp4 --bundle imagebind --phrases woof --truth dog.mp4=3-8 park.mp4=none --out lab
        ovavel vocab try recordings/ --bundle imagebind --phrases "dog barking" "woof" --without "dog barking"

    Each phrase is added on its own to the bundle's vocabulary, and every recording is decided again. A good phrase wins
    the seconds of its event against all other names, and no others. The bundle is not changed; 'ovavel vocab add' adds
    the phrase you choose. The recordings are encoded once, whatever the number of phrases. Phrases are ranked by the F
    score of the seconds they win, then by their lead. If none reaches 0.5, the command reports that no phrase works,
    and the exit code is 1. It is also 1 if a recording could not be read.
    """

    files: Positional[Many[Path]] = ()
    """Recordings, or folders to search for them. They come first, before the options."""
    bundle: Path
    """Folder written by 'ovavel bundle export', with its text encoder."""
    phrases: Many[str] = ()
    """Phrases to try; quote those with spaces."""
    truth: Many[str] = ()
    """When the event occurs, in seconds: CLIP=3-8,12-15 or CLIP=none. By default the whole recording is the event."""
    without: Many[str] = ()
    """Names of the vocabulary to leave out, for example one that a phrase would replace."""
    out: Maybe[Path] = None
    """Folder for vocab-try.json and vocab-try.html; without it the table is only printed."""
    channel: ChannelFlag = "auto"
    engine: VerifiedEngineOptions = field(default_factory=VerifiedEngineOptions)
    """What runs the bundle, and where."""

    def run(self) -> int:
        """Try the phrases, print the table and write the files. Returns 1 if none works or a recording was lost."""
        from ovavel.eval.datasets.texts import embed_texts
        from ovavel.eval.phrases.trial import parse_truth, try_phrases
        from ovavel.runtime.system.bars import shown_progress, shown_status
        from ovavel.runtime.system.files import report_folder
        from ovavel.runtime.verification.first_use import changed_since_first_use

        channel = parse_channel(self.channel)
        example = "For example: ovavel vocab try clip.mp4 --bundle imagebind --phrases 'dog barking'"
        if not self.files:
            raise UsageError(f"which recordings? {example}")
        if not self.phrases:
            raise UsageError(f"which phrases? {example}")
        clips = find_media(self.files)
        if self.out:
            report_folder(self.out, "vocab-test.json")
        truth = parse_truth(self.truth, clips)
        bundle = self.engine.open_bundle(self.bundle)
        vocabulary = self._vocabulary(bundle)
        phrases = bundle.check_names(self.phrases)
        embeddings = embed_texts(bundle, phrases, threads=self.engine.threads)
        with shown_progress() as progress:
            verified = self.engine.open(bundle, progress)
        backend = verified.backend
        try:
            if changed := changed_since_first_use(bundle, backend.info):
                print(f"ovavel: {changed}", file=sys.stderr)
            backend.warm_up()
            recordings, lost = _encode(clips, backend, truth, channel)
            with shown_status("trying phrases") as progress:
                trial = try_phrases(
                    recordings,
                    phrases,
                    embeddings,
                    vocabulary,
                    backend.head,
                    rule=bundle.manifest.fusion.decides,
                    progress=progress,
                )
            info = backend.info
        finally:
            backend.close()
        written = _write(self.out, trial, recordings, bundle, info) if self.out else []
        _print(trial, recordings, written, f"{info.engine}: {verified.text}")
        print_unreadable(lost)
        return 0 if trial.works and not lost else 1

    def _vocabulary(self, bundle: Bundle) -> Vocabulary:
        """The bundle's vocabulary without the names in `without`; only the background may be left."""
        whole = bundle.vocabulary
        gone = {whole.index(name) for name in self.without}
        if len(whole) - 1 in gone:
            raise UsageError(f"{whole.background!r} is the background and cannot be left out")
        kept = [index for index in range(len(whole)) if index not in gone]
        return replace(whole, names=tuple(whole.names[index] for index in kept), embeddings=whole.embeddings[kept])


def _encode(
    clips: Sequence[Path], backend: Backend, truth: dict[Path, tuple[tuple[float, float], ...]], channel: Channel
) -> tuple[list[Recording], dict[str, str]]:
    """Encode all readable `clips`; also return the reason by path for the others. Raises MediaError if none can."""
    from ovavel.eval.phrases.trial import encode_recording
    from ovavel.runtime.reporting.text import one_line
    from ovavel.runtime.system.bars import rated_bar
    from ovavel.runtime.system.progress import prefixed

    recordings: list[Recording] = []
    lost: dict[str, str] = {}
    with rated_bar("s", rate="× real time") as progress:
        for number, clip in enumerate(clips, 1):
            named = prefixed(progress, f"{number}/{len(clips)} {one_line(clip.name)}: ")
            try:
                recordings.append(encode_recording(clip, backend, truth.get(clip), channel=channel, progress=named))
            except MediaError as error:
                lost[str(clip)] = str(error)
    if not recordings:
        more = f" (nor can the other {len(lost) - 1})" if len(lost) > 1 else ""
        raise MediaError(f"{next(iter(lost.values()))}{more}")
    return recordings, lost


def _write(
    out: Path, trial: Trial, recordings: Sequence[Recording], bundle: Bundle, backend: BackendInfo
) -> list[Path]:
    from ovavel.eval.phrases.report import to_html, to_json
    from ovavel.runtime.system.files import atomic_write

    paths = [out / "vocab-try.json", out / "vocab-try.html"]
    for path, write in zip(paths, (to_json, to_html), strict=True):
        atomic_write(path, write(trial, recordings, bundle, backend))
    return paths


def _print(trial: Trial, recordings: Sequence[Recording], written: Sequence[Path], ran: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from ovavel.eval.phrases.report import COLUMNS, cells, verdict
    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.runtime.reporting.text import one_line

    console: Console = OutputConsole(highlight=False, soft_wrap=True)
    console.print(ran, markup=False)
    table = Table(title="each phrase added on its own")
    for title in COLUMNS:
        words = title in ("phrase", "strongest other")
        table.add_column(title, justify="left" if words else "right", no_wrap=not words)
    for phrase in trial.phrases:
        style = "bold" if phrase.rank == 1 and trial.works else ""
        table.add_row(*(Text(one_line(cell)) for cell in cells(phrase)), style=style)
    console.print(table)
    for recording in recordings:
        if recording.missing_s:
            console.print(
                f"{one_line(recording.name)}: {recording.missing_s} of {len(recording.segments)} s without picture or "
                "sound, where no phrase can win",
                markup=False,
            )
    console.print(one_line(verdict(trial)), markup=False)
    if written:
        console.print(
            one_line(f"wrote {', '.join(path.name for path in written)} in {written[0].parent}"), markup=False
        )
