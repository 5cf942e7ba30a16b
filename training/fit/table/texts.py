"""Other texts than the names of a cache: several of the background, and names in prompts. They come from bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ovavel.eval.datasets.texts import embed_texts
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Background, Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import DatasetError, UsageError
from ovavel.training.fit.table.results import Missing
from ovavel.training.fit.table.suites import Row

if TYPE_CHECKING:
    from ovavel.eval.datasets.dataset import Dataset
    from ovavel.eval.datasets.feature_cache import FeatureCache

__all__ = ["OtherTexts", "read_texts"]

_NO_BACKGROUND = Missing(
    reason="it needs further texts of the background, and no bundle that has some was given",
    command='ovavel vocab add --bundle BUNDLE --background "silence" "an empty scene"; then --texts BUNDLE',
)
_NO_PROMPTS = Missing(
    reason="it needs names in prompts, and no bundle that has prompts was given",
    command='ovavel bundle export … --prompts "a photo of {}" "the sound of {}" --out BUNDLE; then --texts BUNDLE',
)


class OtherTexts(NamedTuple):
    """What rows with other texts decide with: C names, K further texts of the background, D embedding size."""

    background: TextEmbeddings | None = None
    """(K, D) for each sense; None where no bundle has any."""
    prompted: TextEmbeddings | None = None
    """(C, D) for each sense, the dataset's names; None where no bundle has prompts."""

    def missing(self, row: Row) -> Missing | None:
        """Return why a row cannot be made."""
        if row.texts == "prompts":
            return None if self.prompted else _NO_PROMPTS
        return _NO_BACKGROUND if row.texts and self.background is None else None

    def names(self, row: Row, plain: TextEmbeddings) -> TextEmbeddings:
        """Return the (C, D) texts of a row; `plain`: those of the cache."""
        return self.prompted if row.texts == "prompts" and self.prompted else plain

    def further(self, row: Row) -> TextEmbeddings | None:
        """Return the (K, D) further texts of the background of a row."""
        return self.background if row.texts in ("max", "logsumexp") else None

    def rule(self, row: Row, rule: Rule) -> Rule:
        """Return `rule` with the way in which a row makes one class of several texts."""
        if row.texts == "max" or row.texts == "logsumexp":
            return Rule(kind=rule.kind, parameters=rule.parameters, background=Background(how=row.texts))
        return rule


def read_texts(bundles: Sequence[Path], dataset: Dataset, cache: FeatureCache) -> OtherTexts:
    """Read further texts of the background, and names in prompts, from bundles of the cache's encoders.

    Raises:
        BundleError: a bundle is damaged.
        DatasetError: a bundle is of other encoders.
        UsageError: a bundle has neither, or two have the same.
        VocabularyError: a bundle with prompts lacks a name, and has no text encoder.
    """
    found = OtherTexts()
    for folder in bundles:
        bundle = Bundle.open(folder)
        vocabulary = bundle.vocabulary
        if bundle.manifest.model.weights_sha256 != cache.info.weights_sha256:
            raise DatasetError(
                f"the bundle {folder} is of other encoders than the feature cache {cache.path}; give one of the same "
                "weights as --texts"
            )
        if not vocabulary.background_texts and not vocabulary.prompts:
            raise UsageError(
                f"the bundle {folder} has no further texts of the background (`ovavel vocab add --background`) and no "
                "prompts (`ovavel bundle export --prompts`): leave it out of --texts"
            )
        new = OtherTexts(
            background=vocabulary.background_embeddings,
            prompted=embed_texts(bundle, dataset.names) if vocabulary.prompts else None,
        )
        if any(ours is not None and theirs is not None for ours, theirs in zip(found, new, strict=True)):
            raise UsageError(f"two bundles of --texts have the same kind of texts: leave {folder} or the other out")
        found = OtherTexts(*(ours or theirs for ours, theirs in zip(found, new, strict=True)))
    return found
