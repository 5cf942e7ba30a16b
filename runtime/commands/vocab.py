"""`ovavel vocab add`, `ovavel vocab remove` and `ovavel vocab list`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from ovavel.runtime.commands.options import Many, Maybe
from ovavel.runtime.errors import UsageError, VocabularyError
from ovavel.runtime.reporting.text import shown_name
from ovavel.runtime.system.bounds import MOST_WORKERS, Meta

if TYPE_CHECKING:
    from ovavel.runtime.bundle.bundle import Bundle
    from ovavel.runtime.bundle.text_embeddings import TextEmbeddings

__all__ = ["Add", "List", "Remove"]

_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Add:
    """Add names to a bundle's vocabulary, using its own text encoder.

    Example:
        ovavel vocab add "glass breaking" "dog barking" --bundle imagebind

    Names are used unchanged; "glass breaking" works better than "glass". If a name is empty, too long or already in the
    vocabulary, the command fails and changes nothing. The background stays last.

    With --background the texts are further texts of the background, such as "silence" or "an empty room": where one of
    them fits better than every name, the second is background.
    """

    names: Positional[Many[str]] = ()
    """Names to add; quote those with spaces."""
    bundle: Path
    """Folder written by 'ovavel bundle export'."""
    background: bool = False
    """Add texts of the background, not names."""
    prompts: Many[str] = ()
    """Sentences with {} in the place of a name, such as "a photo of {}": the average of their embeddings stands for
    the name. By default those that the vocabulary was made with, if any; texts of the background have none."""
    threads: Maybe[Annotated[int, Meta(ge=1, le=MOST_WORKERS)]] = None
    """Threads of the text encoder; as many as cores by default."""

    def run(self) -> int:
        """Add the names."""
        from ovavel.runtime.bundle.bundle import Bundle
        from ovavel.runtime.bundle.vocabulary import normalize_text

        bundle = Bundle.open(self.bundle)
        old = bundle.vocabulary
        for graph in bundle.manifest.encoders.text_graphs:
            bundle.graph(graph)  # raises if there is none, before anything else
        if not self.names:
            raise VocabularyError('which names? For example: ovavel vocab add "glass breaking" --bundle imagebind')
        names = bundle.check_names(self.names)
        if self.background and self.prompts:
            raise UsageError("--prompts is for names; texts of the background are used as they are")
        known = {normalize_text(name): name for name in (*old.names, *old.background_texts)}
        for name in names:
            if (there := known.get(normalize_text(name))) is not None:
                raise VocabularyError(f"the vocabulary of {bundle.path} already has {there!r}; leave {name!r} out")
        prompts = () if self.background else self.prompts or old.prompts
        embeddings = self._embed(bundle, names, prompts)
        added = old.background_added if self.background else old.added
        bundle = bundle.save_vocabulary(added(names, embeddings))
        _print_summary(bundle)
        return 0

    def _embed(self, bundle: Bundle, names: Sequence[str], prompts: Sequence[str]) -> TextEmbeddings:
        """Return the text embeddings of `names`."""
        from ovavel.runtime.backends import open_backend
        from ovavel.runtime.pipeline.texts import encode_texts
        from ovavel.runtime.system.bars import rated_bar

        backend = open_backend(bundle, device="cpu", threads=self.threads, graphs=bundle.manifest.encoders.text_graphs)
        try:
            with rated_bar("names") as progress:
                return encode_texts(backend, bundle.tokenizer, names, batch=_BATCH, prompts=prompts, progress=progress)
        finally:
            backend.close()


@dataclass(frozen=True, kw_only=True)
class Remove:
    """Remove names, or further texts of the background, from a bundle's vocabulary.

    Example:
        ovavel vocab remove "dog barking" --bundle imagebind

    If a name is not in the vocabulary, the command fails and changes nothing. The background cannot be removed.
    """

    names: Positional[Many[str]] = ()
    """Names to remove; quote those with spaces."""
    bundle: Path
    """Folder written by 'ovavel bundle export'."""

    def run(self) -> int:
        """Remove the names."""
        from ovavel.runtime.bundle.bundle import Bundle

        bundle = Bundle.open(self.bundle)
        if not self.names:
            raise VocabularyError("which names? 'ovavel vocab list' lists them")
        _print_summary(bundle.save_vocabulary(bundle.vocabulary.removed(self.names)))
        return 0


@dataclass(frozen=True, kw_only=True)
class List:
    """List the names in a bundle's vocabulary, one per line, the background last, its further texts after a #.

    Example:
        ovavel vocab list --bundle imagebind > names.txt

    The output can be passed to 'ovavel bundle export --vocabulary' unchanged.
    """

    bundle: Path
    """Folder written by 'ovavel bundle export'."""

    def run(self) -> int:
        """Print the names."""
        from ovavel.runtime.bundle.bundle import Bundle

        vocabulary = Bundle.open(self.bundle).vocabulary
        print("\n".join(map(shown_name, vocabulary.names)))
        for text in vocabulary.background_texts:
            print(f"# background: {shown_name(text)}")
        return 0


def _print_summary(bundle: Bundle) -> None:
    from ovavel.runtime.bundle.calibration import OTHER_NAMES
    from ovavel.runtime.pipeline.rules.apply import check_rule
    from ovavel.runtime.reporting.text import names_text, shown_name

    vocabulary = bundle.vocabulary
    print(f"{shown_name(str(bundle.path))}: {names_text(len(vocabulary))}, version {vocabulary.version}")
    if texts := vocabulary.background_texts:
        print(f"further texts of the background: {', '.join(map(shown_name, texts))}")
    rule = bundle.manifest.fusion
    try:
        check_rule(rule.decides, rule.decision, vocabulary.names, len(texts))
    except UsageError as error:
        print(f"'ovavel live' and 'ovavel localize' will refuse it: {error}")
    calibration = bundle.manifest.calibration
    if calibration and not calibration.fits(vocabulary):
        print(OTHER_NAMES)
