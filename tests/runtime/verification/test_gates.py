"""Which gate verifies an engine: where gates are found, which are valid, and what is refused without one."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from pathlib import Path

import msgspec
import pytest
from support.media_factory import make_clip
from support.runtime.gates import without_gates

from ovavel.runtime.backends import BackendInfo, open_backend
from ovavel.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.manifest import FileEntry
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.cli import main
from ovavel.runtime.errors import InputError, UnverifiedError
from ovavel.runtime.system.hardware import cpu_features, device_name
from ovavel.runtime.verification.gates import find_gate, gate_text, require_gate, store_gate
from ovavel.runtime.verification.self_check import (
    self_check,
)

pytestmark = pytest.mark.usefixtures("own_store")


def test_a_gate_is_valid_for_its_graphs_only(tiny_bundle: Path, info: BackendInfo) -> None:
    bundle = Bundle.open(tiny_bundle)
    other = bundle.save_gates(
        [msgspec.structs.replace(g, graphs_sha256="0" * 64) for g in bundle.manifest.parity.gates]
    )
    assert find_gate(other, info) is not None, "the gate of the true graphs is still there"
    assert find_gate(without_gates(tiny_bundle), info) is None


def test_a_gate_is_valid_for_cpus_with_the_same_features(
    tiny_bundle: Path, info: BackendInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name says little: a virtual machine calls many kinds of CPU alike."""
    fp16 = dataclasses.replace(info, precision={**info.precision, "audio": "fp16"})
    bundle = Bundle.open(tiny_bundle)
    (gate,) = bundle.manifest.parity.gates
    assert gate.cpu_features == cpu_features()
    other = msgspec.structs.replace(
        gate, precision=dict(fp16.precision), graphs_sha256=bundle.graphs_sha256(fp16.precision)
    )
    bundle = bundle.save_gates([other])
    store_gate(bundle, fp16, other)
    assert find_gate(bundle, fp16) == other
    monkeypatch.setattr("ovavel.runtime.verification.gates.cpu_features", lambda: ("avx2", "another"))
    assert find_gate(bundle, fp16) is None
    assert find_gate(bundle, info) == gate  # fp32 is the same on every CPU


def test_a_gate_stays_valid_when_the_vocabulary_changes(tiny_bundle: Path, info: BackendInfo) -> None:
    bundle = Bundle.open(tiny_bundle)
    changed = bundle.save_vocabulary(bundle.vocabulary.removed(("race car",)))
    assert find_gate(changed, info)
    assert main(["vocab", "add", "--bundle", str(tiny_bundle), "glass breaking"]) == 0
    assert main(["bundle", "check", "--bundle", str(tiny_bundle)]) == 0


def reordered(vocabulary: Vocabulary) -> Vocabulary:
    first, second, *rest = vocabulary.names
    return Vocabulary(names=(second, first, *rest), embeddings=vocabulary.embeddings)


@pytest.mark.parametrize("by_hand", [True, False])
def test_names_that_do_not_match_their_embeddings_are_not_verified(
    tiny_bundle: Path, info: BackendInfo, by_hand: bool
) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert bundle.manifest.vocabulary == bundle.vocabulary.version
    manifest = bundle.manifest
    if by_hand:
        contents = reordered(bundle.vocabulary).encode()
        entries = {name: FileEntry(sha256=hashlib.sha256(x).hexdigest(), bytes=len(x)) for name, x in contents.items()}
        for name, content in contents.items():
            (tiny_bundle / name).write_bytes(content)
        manifest = msgspec.structs.replace(manifest, files={**manifest.files, **entries})
    (tiny_bundle / "manifest.json").write_bytes(manifest.encode())
    if not by_hand:
        bundle = Bundle.open(tiny_bundle)
        assert find_gate(bundle, info)
        bundle.save_vocabulary(reordered(bundle.vocabulary))
    changed = Bundle.open(tiny_bundle)
    assert find_gate(changed, info) is None
    with pytest.raises(UnverifiedError, match="do not match their embeddings"):
        require_gate(changed, info, allow_unverified=False)
    assert require_gate(changed, info, allow_unverified=True) is None
    later = changed.save_vocabulary(changed.vocabulary.removed([changed.vocabulary.names[2]]))
    assert find_gate(later, info) is None, "a later change makes nothing good"


def test_names_moved_with_their_embeddings_stay_verified(tiny_bundle: Path, info: BackendInfo) -> None:
    bundle = Bundle.open(tiny_bundle)
    order = [1, 0, *range(2, len(bundle.vocabulary))]
    moved = Vocabulary(
        names=tuple(bundle.vocabulary.names[i] for i in order), embeddings=bundle.vocabulary.embeddings[order]
    )
    assert find_gate(bundle.save_vocabulary(moved), info)


@pytest.mark.parametrize("change", [{"device": "another CPU"}, {"versions": {"onnxruntime": "0.1"}}])
def test_only_fp32_on_a_cpu_is_verified_everywhere(
    tiny_bundle: Path, info: BackendInfo, change: dict[str, object]
) -> None:
    bundle = Bundle.open(tiny_bundle)
    elsewhere = [msgspec.structs.replace(gate, **change) for gate in bundle.manifest.parity.gates]
    assert find_gate(without_gates(tiny_bundle).save_gates(elsewhere), info)
    cuda = dataclasses.replace(info, engine="onnxruntime-cuda", device="cpu")
    there = [msgspec.structs.replace(gate, engine="onnxruntime-cuda") for gate in elsewhere]
    assert not find_gate(Bundle.open(tiny_bundle).save_gates(there), cuda)
    here = [msgspec.structs.replace(g, device=device_name("cpu"), versions=dict(info.versions)) for g in there]
    assert find_gate(Bundle.open(tiny_bundle).save_gates(here), cuda)


def test_a_gate_in_the_store_of_this_machine_is_valid(tiny_bundle: Path, info: BackendInfo) -> None:
    bundle = without_gates(tiny_bundle)
    with pytest.raises(UnverifiedError, match=r"`ovavel bundle check .* --device cpu --precision fp32`"):
        require_gate(bundle, info, allow_unverified=False)
    assert require_gate(bundle, info, allow_unverified=True) is None
    backend = open_backend(bundle, device="cpu")
    gate = self_check(bundle, backend)
    backend.close()
    path = store_gate(bundle, info, gate)
    assert find_gate(bundle, info) == gate
    path.write_text("{damaged")
    assert find_gate(bundle, info) is None


def test_a_failed_gate_is_refused_with_its_reason(tiny_bundle: Path, info: BackendInfo) -> None:
    bundle = Bundle.open(tiny_bundle)
    failed = msgspec.structs.replace(bundle.manifest.parity.gates[0], passed=False, failures=("audio: far off",))
    store_gate(bundle, info, failed)
    with pytest.raises(UnverifiedError, match="disagrees with PyTorch: audio: far off"):
        require_gate(bundle, info, allow_unverified=False)
    assert gate_text(require_gate(bundle, info, allow_unverified=True), here=True) == "not verified: audio: far off"


def test_a_passed_comparison_does_not_cancel_a_failed_one_of_the_other_kind(
    tiny_bundle: Path, info: BackendInfo
) -> None:
    bundle = Bundle.open(tiny_bundle)
    passed = bundle.manifest.parity.gates[0]
    failed = msgspec.structs.replace(passed, passed=False, failures=("audio: far off",))
    for reference, fix in ((passed.reference, "bundle check"), ("PyTorch fp32", "eval parity")):
        other = "PyTorch fp32" if reference == passed.reference else passed.reference
        bad = store_gate(bundle, info, msgspec.structs.replace(failed, reference=reference))
        good = store_gate(bundle, info, msgspec.structs.replace(passed, reference=other))
        assert bad != good
        with pytest.raises(UnverifiedError, match=f"audio: far off.*{fix}"):
            require_gate(bundle, info, allow_unverified=False)
        store_gate(bundle, info, msgspec.structs.replace(passed, reference=reference))
        assert require_gate(bundle, info, allow_unverified=False)


@pytest.mark.parametrize("command", ["live", "localize"])
def test_a_refused_backend_is_closed(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    clip = str(make_clip(tmp_path / "clip.mp4", duration_s=2, fps=5))
    without_gates(tiny_bundle)
    closed: list[str] = []
    close = OnnxRuntimeBackend.close
    monkeypatch.setattr(OnnxRuntimeBackend, "close", lambda self: (closed.append(self.info.name), close(self))[1])
    arguments = [clip, "--view", "none"] if command == "live" else [clip]
    assert main([command, *arguments, "--bundle", str(tiny_bundle), "--device", "cpu"]) == 1
    assert closed == ["onnxruntime"]


def test_an_engine_without_a_gate_is_refused(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = str(make_clip(tmp_path / "clip.mp4", duration_s=2, fps=5))
    live = ["live", "--bundle", str(tiny_bundle), clip, "--view", "lines", "--device", "cpu"]
    localize = ["localize", clip, "--bundle", str(tiny_bundle), "--device", "cpu"]
    lab = ["vocab", "try", clip, "--bundle", str(tiny_bundle), "--phrases", "dog barking", "--device", "cpu"]
    worked = {0, 1}  # 1 where no phrase works
    for command in (live, localize, lab):
        assert main(command) in (worked if command is lab else {0})
        assert "PyTorch fp32 by the bundle's own record" in (out := capsys.readouterr().out)
        assert "not checked on this machine" in out
        assert "verified" not in out
    without_gates(tiny_bundle)
    for command in (live, localize, lab):
        assert main(command) == 1
        assert "ovavel bundle check" in capsys.readouterr().err
        assert main([*command, "--allow-unverified"]) in (worked if command is lab else {0})
        assert "not verified" in capsys.readouterr().out
    assert main(["bundle", "check", "--bundle", str(tiny_bundle), "--device", "cpu"]) == 0
    assert "passed: it agrees with PyTorch" in capsys.readouterr().out
    capsys.readouterr()
    assert main(live) == 0
    assert "verified against PyTorch fp32" in capsys.readouterr().out
    assert not Bundle.open(tiny_bundle).manifest.parity.gates
    assert main(["bundle", "check", "--bundle", str(tiny_bundle), "--device", "cpu", "--record"]) == 0
    assert Bundle.open(tiny_bundle).manifest.parity.gates


def _bad(path: Path, kind: str) -> None:
    if kind == "another user's":
        os.chown(path, 12345, -1)
    else:
        path.chmod(0o775 if kind == "the group's" else 0o777)


@pytest.mark.parametrize("kind", ["another user's", "the group's", "everybody's"])
@pytest.mark.parametrize("level", [0, 1, 2], ids=["gate", "folder of gates", "cache"])
def test_gates_that_other_users_could_write_are_refused(
    tiny_bundle: Path, info: BackendInfo, kind: str, level: int
) -> None:
    if kind == "another user's" and os.geteuid() != 0:
        pytest.skip("giving a file to another user takes the superuser")
    bundle = Bundle.open(tiny_bundle)
    path = store_gate(bundle, info, bundle.manifest.parity.gates[0])
    assert [each.stat().st_mode & 0o777 for each in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]
    place = (path, path.parent, path.parent.parent)[level]
    _bad(place, kind)
    with pytest.raises(InputError, match=f"^{re.escape(str(place))} .*is not trusted; delete it"):
        require_gate(bundle, info, allow_unverified=True)
    if level:
        with pytest.raises(InputError, match="is not trusted"):
            store_gate(bundle, info, bundle.manifest.parity.gates[0])


def test_gates_are_private_whatever_the_umask(tiny_bundle: Path, info: BackendInfo) -> None:
    bundle = Bundle.open(tiny_bundle)
    before = os.umask(0)
    try:
        store_gate(bundle, info, bundle.manifest.parity.gates[0])
    finally:
        os.umask(before)
    assert find_gate(bundle, info)
