"""Adds names to a bundle and removes them, one change at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.vocabulary import normalize_text
from ovavel.runtime.errors import BundleError, InputError, OutputError, VocabularyError
from ovavel.service.link import Child, LinkClosed
from ovavel.service.names.adopt import check_rule_with
from ovavel.service.names.child import Done, Wanted

__all__ = ["Editor", "KnownNameError", "check_name", "has_text_encoder"]

_ENCODE_S = 600.0
"""Opening the text encoder of a large model takes long on a small machine."""
_MOST_WAITING = 8


class KnownNameError(VocabularyError):
    """The name is there already."""


class Editor:
    """Changes the vocabulary of one bundle."""

    def __init__(self, bundle: Path) -> None:
        """Change the bundle in the folder `bundle`."""
        self._path = bundle
        self._turn, self._state = threading.Lock(), threading.Lock()
        self._waiting, self._stopped = 0, False
        self._child: Child | None = None

    def add(self, name: str) -> str:
        """Add a name before the background, with the bundle's own text encoder; returns it as it was added.

        Raises:
            OvavelError: it cannot be added; the vocabulary is as before.
        """
        with self._my_turn():
            bundle = Bundle.open(self._path)
            checked = check_name(bundle, name)
            self._check_writable()
            answer = self._ask(Wanted(bundle=str(self._path), name=checked))
            if answer.error:
                raise VocabularyError(answer.error)
            return checked

    def remove(self, name: str) -> None:
        """Remove a name, which must be given as it is.

        Raises:
            OvavelError: it cannot be removed, or is not there; the vocabulary is as before.
        """
        with self._my_turn():
            bundle = Bundle.open(self._path)
            if name not in bundle.vocabulary.names[:-1]:
                raise VocabularyError(f"{name!r} is not in the vocabulary")
            self._check_writable()
            bundle.save_vocabulary(bundle.vocabulary.removed([name]))

    def stop(self) -> None:
        """Change nothing any more; what is being encoded is given up."""
        with self._state:
            self._stopped = True
            child = self._child
        if child:
            child.link.close()
            child.process.kill()

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        with self._state:
            if self._waiting >= _MOST_WAITING:
                raise InputError("others are changing the names; try again in a minute")
            self._waiting += 1
        try:
            with self._turn:
                yield
        finally:
            with self._state:
                self._waiting -= 1

    def _check_writable(self) -> None:
        if not os.access(self._path, os.W_OK):
            raise OutputError(
                f"the service may not write to the bundle's folder {self._path}: give its user the right to, and in a "
                f"systemd unit ReadWritePaths={self._path}"
            )

    def _ask(self, wanted: Wanted) -> Done:
        child: Child | None = None
        try:
            with self._state:
                if self._stopped:
                    raise InputError("the service is ending")
                child = self._child = Child("ovavel.service.names.child")
            child.link.send(wanted)
            answer: Done = child.link.receive(Done, timeout_s=_ENCODE_S)
            return answer
        except LinkClosed as error:
            why = f" (exit status {child.stop()})" if child else ""
            raise OutputError(f"the text encoder was lost{why}: {error}; the vocabulary is as before") from error
        finally:
            self._child = None
            if child:
                child.stop()


def has_text_encoder(bundle: Bundle) -> bool:
    """Whether names can be added to it."""
    return all(bundle.manifest.graphs.get(graph) for graph in bundle.manifest.encoders.text_graphs)


def check_name(bundle: Bundle, name: str) -> str:
    """Return a name as it would be added to the bundle, without surrounding white space.

    Raises:
        BundleError: the bundle has no text encoder.
        KnownNameError: it has the name.
        VocabularyError: the name cannot be used; says why.
        UsageError: the rule that decides cannot with this name.
    """
    if not has_text_encoder(bundle):
        raise BundleError("this bundle has no text encoder: export it again with the names that you want")
    (checked,) = bundle.check_names((name,))
    known = (*bundle.vocabulary.names, *bundle.vocabulary.background_texts)
    for there in known:
        if normalize_text(there) == normalize_text(checked):
            raise KnownNameError(f"the vocabulary already has {there!r}")
    check_rule_with(bundle, checked)
    return checked
