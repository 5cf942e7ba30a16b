"""A bundle's golden outputs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import BundleError
from ovavel.runtime.verification.compare import compare_embeddings, embedding_failure
from ovavel.runtime.verification.golden import GOLDEN, Golden
from ovavel.runtime.verification.requirements import REQUIREMENTS

pytestmark = pytest.mark.usefixtures("own_store")


def test_golden_outputs_round_trip(exported_bundle: Path) -> None:
    golden = Golden.load(Bundle.open(exported_bundle))
    assert golden.encode() == (exported_bundle / GOLDEN).read_bytes()
    assert golden.clips.shape[1:] == (10, 2)
    assert golden.names == ("dog barking", "race car", "bird chirping", "other")
    assert {"black", "white", "noise", "saturated red"} < set(golden.frames)
    assert {"silence", "near silence", "noise", "clipping", "click"} < set(golden.waveforms)
    assert (exported_bundle / GOLDEN).stat().st_size < 1.6e6


def test_a_bundle_without_golden_outputs_cannot_check_itself(tiny_bundle: Path) -> None:
    content = json.loads((tiny_bundle / "manifest.json").read_text())
    del content["files"][GOLDEN]
    (tiny_bundle / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="cannot check itself"):
        Golden.load(Bundle.open(tiny_bundle))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_golden_file_is_named(tiny_bundle: Path, damage: bytes | None) -> None:
    bundle = Bundle.open(tiny_bundle)
    data = (tiny_bundle / GOLDEN).read_bytes()
    damaged = data[: len(data) // 2] if damage is None else damage
    with pytest.raises(BundleError, match=r"golden\.npz is damaged"):
        Golden.decode(damaged, bundle.manifest.encoders, where=GOLDEN)
    (tiny_bundle / GOLDEN).write_bytes(damaged)
    with pytest.raises(BundleError, match=r"golden\.npz was altered"):
        Golden.load(bundle)


def test_a_non_finite_reference_fails_and_is_refused(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    golden = Golden.load(bundle)
    broken = golden.vision.copy()
    broken[1, 0] = np.nan
    found = compare_embeddings(golden.vision, broken)
    assert (found.cosine[1], found.away[1]) == (-1, 2)
    names = list(golden.frames)
    assert embedding_failure(REQUIREMENTS["int8"], found, names) == f"not finite (for {names[1]})"
    for change in ({"vision": broken}, {"log_mels": {n: x + np.inf for n, x in golden.log_mels.items()}}):
        data = dataclasses.replace(golden, **change).encode()
        with pytest.raises(BundleError, match=r"golden\.npz is damaged \(\S.* is not finite\)"):
            Golden.decode(data, bundle.manifest.encoders, where=GOLDEN)
