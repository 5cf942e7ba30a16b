"""Find the comparison with PyTorch that verifies an engine: the bundle's own, or one made on this machine.

A gate is valid for exactly the graphs it was made with. A gate shipped in the bundle is valid everywhere for fp32 on a
CPU, whose arithmetic is the same everywhere. Any other engine or precision must be compared on a device of the same
name (for a CPU, with the same features) and with the same library versions, because these determine the kernels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import msgspec

from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import DECIDING, Graph
from ovavel.runtime.bundle.manifest import Gate
from ovavel.runtime.errors import UnverifiedError
from ovavel.runtime.system.files import atomic_write, cache_folder, check_private, make_private_folder
from ovavel.runtime.system.hardware import cpu_features, device_name
from ovavel.runtime.system.untrusted import read_json
from ovavel.runtime.verification.golden import GOLDEN_REFERENCE

__all__ = ["checked_here", "find_gate", "gate_text", "require_gate", "store_gate"]

Kind: TypeAlias = Literal["self-check", "parity"]
_KINDS: tuple[Kind, ...] = get_args(Kind)


def find_gate(bundle: Bundle, info: BackendInfo) -> Gate | None:
    """Return this machine's gate for the engine in `info`, else the bundle's own; None if there is neither.

    A failed gate takes precedence over gates of other kinds. No gate is valid if the names and embeddings of the
    vocabulary no longer match.

    Raises:
        InputError: other users can write to this machine's gates.
    """
    if not _names_hold(bundle):
        return None
    graphs = bundle.graphs_sha256(_precision(info))
    stored = [gate for kind in _KINDS if (gate := _read(_path(graphs, info, kind))) and _is_of(gate, graphs, info)]
    if stored:
        return _worst(stored)
    anywhere = info.engine == "onnxruntime-cpu" and set(_precision(info).values()) == {"fp32"}
    found = [
        gate
        for gate in bundle.manifest.parity.gates
        if _is_of(gate, graphs, info)
        and (anywhere or (_is_from_here(gate, info) and gate.versions == dict(info.versions)))
    ]
    return _worst(found) if found else None


def store_gate(bundle: Bundle, info: BackendInfo, gate: Gate) -> Path:
    """Store `gate` on this machine, replacing an older one of the same kind; return the file.

    Raises:
        OutputError: it cannot be written.
        InputError: other users can write to the store.
    """
    path = _path(bundle.graphs_sha256(_precision(info)), info, _kind(gate))
    make_private_folder(path.parent)
    atomic_write(path, msgspec.json.format(msgspec.json.encode(gate), indent=2) + b"\n", private=True)
    return path


def require_gate(bundle: Bundle, info: BackendInfo, *, allow_unverified: bool) -> Gate | None:
    """Return the gate that verifies the engine in `info`.

    With `allow_unverified`, return a failed gate, or None if there is no gate.

    Raises:
        UnverifiedError: there is no gate, or it failed.
    """
    gate = find_gate(bundle, info)
    if allow_unverified or (gate and gate.passed):
        return gate
    what = f"{info.engine} in {_precisions(info)}"
    fix = f"`{_command(bundle, info)}` verifies it in under a minute; --allow-unverified skips this check"
    if not _names_hold(bundle):
        raise UnverifiedError(
            f"the names in the vocabulary of {bundle.path} do not match their embeddings (reordered, or edited by "
            "hand): export or copy the bundle again; --allow-unverified skips this check"
        )
    if gate is None:
        raise UnverifiedError(
            f"{what} of the bundle {bundle.path} has not been verified against PyTorch on this machine: {fix}"
        )
    if _kind(gate) == "parity":
        fix = "`ovavel eval parity --help` explains how to compare them again; --allow-unverified skips this check"
    raise UnverifiedError(
        f"{what} of the bundle {bundle.path} disagrees with PyTorch: {gate.failures[0]}. Use another engine or "
        f"precision, or export the bundle again; {fix}"
    )


def checked_here(bundle: Bundle, gate: Gate | None) -> bool:
    """Whether `gate`, as returned by `find_gate`, was made on this machine rather than shipped in the bundle.

    The author of a bundle can write any gate into it.
    """
    return gate is not None and not any(gate is each for each in bundle.manifest.parity.gates)


def gate_text(gate: Gate | None, *, here: bool) -> str:
    """Describe in a few words what verifies an engine, and whether that was done `here`: see `checked_here`."""
    if gate is None:
        return "not verified"
    if not gate.passed:
        return f"not verified: {gate.failures[0]}"
    cosine = min(gate.min_cosine.values(), default=0.0)
    reference = gate.reference.removeprefix("golden outputs of ")
    if here:
        return f"verified against {reference}, cosine at least {_floor(cosine)}"
    return f"as {reference} by the bundle's own record, cosine at least {_floor(cosine)}; not checked on this machine"


def _floor(cosine: float) -> str:
    """Format a cosine with enough digits to distinguish it from 1, never rounded up."""
    for digits in (3, 4, 5, 6, 7):
        cut = int(cosine * 10**digits) / 10**digits
        if 1 - cut < 1.5 * (1 - cosine):
            return f"{cut:.{digits}f}"
    return "0.9999999"


def _names_hold(bundle: Bundle) -> bool:
    """Whether the vocabulary is as it was verified."""
    return bundle.manifest.vocabulary == bundle.vocabulary.version


def _is_of(gate: Gate, graphs: str, info: BackendInfo) -> bool:
    """Whether `gate` was made for the graphs with the hash `graphs`, run by this engine at this precision."""
    wanted = _precision(info)
    return (
        gate.engine == info.engine
        and {graph: gate.precision.get(graph) for graph in wanted} == wanted
        and gate.graphs_sha256 == graphs
    )


def _is_from_here(gate: Gate, info: BackendInfo) -> bool:
    """Whether `gate` was made on a device like this one; a virtual machine's CPU name alone says little."""
    return (gate.device, gate.cpu_features) == _device(info)


def _device(info: BackendInfo) -> tuple[str, tuple[str, ...]]:
    return device_name(info.device), cpu_features() if info.device == "cpu" else ()


def _worst(gates: Sequence[Gate]) -> Gate:
    """Return the newest failed gate, else the newest gate."""
    return next((gate for gate in reversed(gates) if not gate.passed), gates[-1])


def _kind(gate: Gate) -> Kind:
    return "self-check" if gate.reference == GOLDEN_REFERENCE else "parity"


def _path(graphs: str, info: BackendInfo, kind: Kind) -> Path:
    """Return the store's file for one kind of comparison; its name covers everything a comparison depends on."""
    parts = {
        "engine": info.engine,
        "precision": _precision(info),
        "graphs": graphs,
        "versions": {**info.versions, "ovavel": version("ovavel")},
        "device": _device(info),
    }
    key = hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:32]
    return cache_folder() / "gates" / f"{key}.{kind}.json"


def _read(path: Path) -> Gate | None:
    """Read the gate in `path`; None if it is unreadable, in which case the comparison is repeated.

    Raises:
        InputError: another user may have written it.
    """
    check_private(path)
    try:
        return read_json(path.read_bytes(), Gate)
    except (OSError, ValueError):
        return None


def _precision(info: BackendInfo) -> dict[Graph, str]:
    return {graph: info.precision[graph] for graph in DECIDING if graph in info.precision}


def _precisions(info: BackendInfo) -> str:
    return "/".join(dict.fromkeys(_precision(info).values()))


def _command(bundle: Bundle, info: BackendInfo) -> str:
    """Return the self-check command for exactly the engine in `info`."""
    precision = info.precision.get("audio") or info.precision.get("vision", "fp32")
    flags = f"--backend {info.name} --device {info.device} --precision {precision}"
    return f"ovavel bundle check --bundle {bundle.path} {flags}"
