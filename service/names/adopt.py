"""A bundle that is read again while a service runs with it: its vocabulary may be another one, and nothing else."""

from __future__ import annotations

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.manifest import Manifest
from ovavel.runtime.bundle.vocabulary import EMBEDDINGS, NAMES
from ovavel.runtime.errors import InputError
from ovavel.runtime.pipeline.rules.apply import live_rule

__all__ = ["check_rule_with", "read_again", "rule_of"]

_WITH_THE_NAMES = frozenset({"vocabulary", "parity", "economy"})
"""Fields of a manifest that change with its vocabulary, or that a comparison adds to."""
_LISTED = 3
"""So many files are named."""


def rule_of(bundle: Bundle) -> Rule:
    """The rule that decides by default, which must be able to with the bundle's names.

    Raises:
        UsageError: it cannot; says why.
    """
    return _rule(bundle, bundle.vocabulary.names)


def check_rule_with(bundle: Bundle, name: str) -> None:
    """Check that the rule can decide with one more name.

    Raises:
        UsageError: it cannot; says why.
    """
    *names, background = bundle.vocabulary.names
    _rule(bundle, (*names, name, background))


def _rule(bundle: Bundle, names: tuple[str, ...]) -> Rule:
    fusion = bundle.manifest.fusion
    return live_rule(fusion.decides, fusion.decision, None, names, len(bundle.vocabulary.background_texts))


def read_again(bundle: Bundle) -> Bundle:
    """The bundle in the folder of `bundle` as it is now; `bundle` itself where its vocabulary and gates are the same.

    Raises:
        BundleError: it cannot be read any more, or is damaged.
        InputError: something else than the vocabulary has changed, or names that stay mean something else; names it.
        UsageError: the rule that decides cannot with these names.
    """
    now = Bundle.open(bundle.path)
    if different := _different(bundle.manifest, now.manifest):
        raise InputError(
            f"{', '.join(different)} of the bundle {bundle.path} cannot change while the service runs; restart the "
            "service, or undo the change"
        )
    if now.vocabulary.version == bundle.vocabulary.version:
        return bundle if now.manifest.economy == bundle.manifest.economy else now
    if not now.vocabulary.agrees_with(bundle.vocabulary):
        raise InputError(
            f"the background of the bundle {bundle.path}, or the text embeddings of names that stay, cannot change "
            "while the service runs; restart the service, or undo the change"
        )
    rule_of(now)
    return now


def _different(before: Manifest, after: Manifest) -> list[str]:
    """Fields that differ, and files, other than those of the vocabulary."""
    fields = [
        name
        for name in Manifest.__struct_fields__
        if name not in _WITH_THE_NAMES | {"files"} and getattr(before, name) != getattr(after, name)
    ]
    names = sorted((before.files.keys() | after.files.keys()) - {NAMES, EMBEDDINGS})
    files = [name for name in names if before.files.get(name) != after.files.get(name)]
    return fields + files[:_LISTED] + (["other files"] if len(files) > _LISTED else [])
