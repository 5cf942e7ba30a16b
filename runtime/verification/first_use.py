"""Record of the weights that this machine first used from a bundle, so that replaced weights are noticed.

A gate shows that an engine computes what the author of the bundle computed. It does not show that the bundle is still
the same as last week: whoever changes weights can also change hashes and gates. So the hashes of the graphs that decide
are stored per bundle folder, and a change is reported until the user accepts it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import DECIDING, Graph
from ovavel.runtime.bundle.manifest import Sha256
from ovavel.runtime.errors import OutputError
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.system.files import atomic_write, cache_folder, check_private, make_private_folder
from ovavel.runtime.system.untrusted import read_json

__all__ = ["accept", "changed_since_first_use"]

_WHOLE = "all"
"""Stands for a precision that the engine derives itself from the bundle's graph."""

_log = logging.getLogger(__name__)


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    bundle: str
    """The folder, for human readers: the file name is a hash."""
    since: str
    """Date, ISO 8601, UTC."""
    graphs: dict[str, Sha256]
    """Graph and precision → hash over its files, weights included."""


def changed_since_first_use(bundle: Bundle, info: BackendInfo) -> str | None:
    """Describe which graphs of `info` differ from those first used from this folder; None if none do.

    Graphs used for the first time are recorded. Changed ones are not: they are reported until `accept` is called.

    Raises:
        InputError: other users can write to the records.
    """
    file = _file(bundle)
    known = _read(file)
    graphs = known.graphs if known else {}
    now = _hashes(bundle, {graph: info.precision[graph] for graph in DECIDING if graph in info.precision})
    others = [name for name, sha256 in now.items() if graphs.get(name, sha256) != sha256]
    if known and others:
        return one_line(
            f"the weights differ from those first used from {bundle.path} on {known.since}: {', '.join(others)}. If "
            "you did not replace them, do not trust them; if you did, `ovavel bundle check` on this bundle accepts them"
        )
    if not now.items() <= graphs.items():
        try:
            _write(file, bundle, {**graphs, **now}, since=known.since if known else _today())
        except OutputError as error:  # e.g. no writable home folder
            _log.warning("cannot record which weights were used first: %s", error)
    return None


def accept(bundle: Bundle) -> None:
    """Record every graph of `bundle` as first used from its folder today.

    Raises:
        OutputError: the record cannot be written.
        InputError: other users can write to the records.
        BundleError: a file was modified.
    """
    hashes: dict[str, str] = {}
    for graph in DECIDING:
        for precision in (*bundle.manifest.graphs.get(graph, {}), _WHOLE):
            hashes |= _hashes(bundle, {graph: precision})
    _write(_file(bundle), bundle, hashes, since=_today())


def _hashes(bundle: Bundle, precisions: dict[Graph, str]) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for graph, precision in precisions.items():
        if there := bundle.manifest.graphs.get(graph):
            name = precision if precision in there else _WHOLE
            hashes[f"{graph} {name}"] = bundle.graphs_sha256({graph: name})
    return hashes


def _file(bundle: Bundle) -> Path:
    folder = os.fsencode(os.path.realpath(bundle.path))
    return cache_folder() / "first-used" / f"{hashlib.sha256(folder).hexdigest()[:32]}.json"


def _read(file: Path) -> _Record | None:
    """Read the record; None if it is missing or unreadable. Nobody else can write there, so damage is accidental."""
    check_private(file)
    try:
        return read_json(file.read_bytes(), _Record)
    except (OSError, ValueError):
        return None


def _write(file: Path, bundle: Bundle, graphs: dict[str, str], *, since: str) -> None:
    make_private_folder(file.parent)
    folder = os.fsencode(os.path.realpath(bundle.path)).decode(errors="replace")
    record = msgspec.json.encode(_Record(bundle=folder, since=since, graphs=graphs))
    atomic_write(file, msgspec.json.format(record, indent=2) + b"\n", private=True)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
