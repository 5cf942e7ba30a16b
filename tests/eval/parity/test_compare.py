"""Two backends compared: the figures, the gates, and what the command prints, writes and remembers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.media_factory import make_clip
from support.ovavebench_factory import DAMAGE, break_clip, make_bench

from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.eval.parity.clips import DatasetClips, RecordedClips
from ovavel.eval.parity.compare import _decision
from ovavel.eval.parity.figures import Place, compare_decisions, compare_graph, event_iou
from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import fused_score
from ovavel.runtime.system.progress import no_progress
from ovavel.runtime.verification.requirements import requirement


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def head_output(labels: list[int], classes: int = 4, seed: int = 0) -> HeadOutput:
    similarity = np.random.default_rng(seed).uniform(0.1, 0.3, (len(labels), classes)).astype(np.float32)
    similarity[np.arange(len(labels)), labels] = 0.5
    return HeadOutput(similarity, similarity, fused_score(similarity, similarity))


PLACES = [[Place("clip", second) for second in range(4)]]


def test_embeddings_that_are_equal_near_far_and_not_finite() -> None:
    theirs = unit(np.random.default_rng(0).standard_normal((4, 8)))
    ours = theirs.copy()
    ours[1] = unit(theirs[1] + 0.01)
    ours[2] = -theirs[2]
    ours[3, 0] = np.nan
    figures = compare_graph("vision", ours, theirs, [Place(name) for name in "abcd"])
    assert figures.found.cosine[0] == pytest.approx(1, abs=1e-6)
    assert 0.99 < figures.found.cosine[1] < 1
    assert figures.found.cosine[2] == pytest.approx(-1, abs=1e-6)
    assert (figures.found.cosine[3], figures.found.away[3]) == (-1, 2)
    assert set(figures.worst(2)) == {2, 3}
    assert figures.found.away[0] == 0


def test_events_that_move_split_and_vanish() -> None:
    def iou(ours: list[int], theirs: list[int]) -> float:
        return event_iou([np.array(ours)], [np.array(theirs)], 9)

    assert iou([9, 9, 9], [9, 9, 9]) == 1
    assert iou([1, 1, 9, 2], [1, 1, 9, 2]) == 1
    assert iou([1, 1, 9, 9], [1, 1, 1, 1]) == 0.5
    assert iou([1, 9, 9, 9], [2, 9, 9, 9]) == 0
    assert iou([1, 1, 1, 9], [1, 9, 1, 9]) == pytest.approx((1 / 3 + 1 / 3 + 1 / 3) / 3)


def test_a_flipped_second_is_listed_with_its_margins() -> None:
    names = ["dog", "cat", "bell", "other"]
    same, flipped = head_output([0, 1, 3, 3]), head_output([0, 2, 3, 3])
    found = compare_decisions([same], [same], PLACES, names, None)
    assert (found.alike, found.top5, found.event_iou, found.flips) == (1, 1, 1, ())
    assert found.reference == found.candidate == (1, 1, 1, 1)
    found = compare_decisions([flipped], [same], PLACES, names, np.array([[0, 1, 3, 3]]))
    (flip,) = found.flips
    assert (flip.place, flip.reference, flip.candidate) == (Place("clip", 1), "cat", "bell")
    assert flip.reference_margin > 0 < flip.candidate_margin
    assert found.alike == 0.75
    assert found.labelled
    assert found.candidate.acc == 0.75 < found.reference.acc == 1
    assert found.drift[0] == 0 < found.drift[1]


def test_lost_measures_report_the_margin_of_flipped_seconds() -> None:
    same, flipped = head_output([0, 1, 2, 3]), head_output([0, 1, 1, 3])
    found = compare_decisions([flipped], [same], PLACES, ["a", "b", "c", "other"], None)
    check = _decision(found, requirement("int8"))
    margin = same.score[2, 2] - same.score[2, 1]
    assert check.stage == "decision"
    assert check.failure == (
        f"Acc. 75.00% is 75.0% of the reference's, needs 99% (seconds flipped: 1, margin of the clearest {margin:.3f})"
    )
    assert not _decision(
        compare_decisions([same], [same], PLACES, ["a", "b", "c", "other"], None), requirement("int8")
    ).failure


def test_scores_that_are_not_finite_mean_background() -> None:
    names = ["dog", "cat", "bell", "other"]
    same = head_output([0, 1, 3, 3])
    broken = HeadOutput(*(np.full_like(rows, np.nan) for rows in same))
    found = compare_decisions([broken], [same], PLACES, names, None)
    assert found.alike == 0.5
    assert found.audio_similarity == found.vision_similarity == 2
    assert np.isfinite(found.drift).all()


def test_clips_of_a_dataset_are_spread_and_damaged_ones_reported(tmp_path: Path, exported_bundle: Path) -> None:
    from ovavel.runtime.backends import open_backend

    bench = OVAVEBench.open(make_bench(tmp_path / "bench", clips=1))
    clips = DatasetClips(bench, "test", 3)
    assert [clip.category for clip in clips.clips] == ["ambulance siren", "race car", "church bell ringing"]
    assert clips.summary == "3 of 6 clips of test"
    break_clip(bench.root, clips.clips[0], DAMAGE[2])
    backend = open_backend(Bundle.open(exported_bundle), device="cpu", threads=1)
    reported: list[float] = []
    encoded = clips.encode(backend, lambda _what, done=None, total=1.0, note="": reported.append(done))
    backend.close()
    assert len(encoded) == 2
    assert reported == [10, 20, 30]
    assert clips.summary == "3 of 6 clips of test, 1 of them damaged"
    assert clips.truth([clip.name for clip in encoded]).shape == (2, 10)
    window = clips.window(encoded[0].name, 4)
    assert window.frame is not None
    assert window.waveform is not None
    with pytest.raises(UsageError, match="at least 1"):
        DatasetClips(bench, "test", 0)


def test_clips_are_chosen_among_those_that_can_be_read(tmp_path: Path) -> None:
    bench = OVAVEBench.open(make_bench(tmp_path / "bench", clips=1))
    test = bench.select("test")
    for clip in (*test[:3], test[4]):
        shutil.rmtree(bench.frames_dir(clip))
    for most, expected in {1: [test[3]], 2: [test[3], test[5]], 3: [test[3], test[5]], 6: [test[3], test[5]]}.items():
        clips = DatasetClips(bench, "test", most)
        assert list(clips.clips) == expected
        assert f"{len(expected)} of 6 clips of test; " in clips.summary
        assert clips.summary.endswith("damaged ones were skipped")
    assert len(DatasetClips(bench, "test").clips) == 6  # without a number all are tried, and counted
    for clip in (test[3], test[5]):
        shutil.rmtree(bench.frames_dir(clip))
    assert len(DatasetClips(bench, "test", 2).clips) == 6  # to be refused with the reasons


def test_a_recording_is_cut_into_pieces_of_ten_seconds(tmp_path: Path, exported_bundle: Path) -> None:
    from ovavel.runtime.backends import open_backend

    clips = RecordedClips([make_clip(tmp_path / "clip.mp4", duration_s=12, fps=5)])
    backend = open_backend(Bundle.open(exported_bundle), device="cpu", threads=1)
    encoded = clips.encode(backend, no_progress)
    backend.close()
    assert [clip.seconds for clip in encoded] == [tuple(range(10)), (10, 11)]
    assert clips.window(encoded[1].name, 11).index == 11
    assert clips.duration_s == pytest.approx(12, abs=0.2)


def test_recordings_that_cannot_be_read_are_left_out_and_named(
    tmp_path: Path, exported_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    make_clip(folder / "good.mp4", duration_s=2, fps=5)
    (folder / "b\x1b[31m\nd.mp4").write_bytes(b"no media")
    empty = make_clip(folder / "empty.mkv", duration_s=1, fps=5).read_bytes()
    (folder / "empty.mkv").write_bytes(empty[: empty.index(b"\x1f\x43\xb6\x75")])  # a header and no cluster
    other = shutil.copytree(exported_bundle, tmp_path / "other")
    Bundle.open(other).save_vocabulary(Bundle.open(other).vocabulary.removed(["race car"]))
    assert parity(exported_bundle, "--reference-bundle", other, folder) == 1
    said = capsys.readouterr()
    assert "3 recordings, 2 of them unreadable" in said.out
    assert r"b\x1b[31m" in said.err
    assert "empty.mkv" in said.err
    assert "\x1b" not in said.out + said.err
    assert "Traceback" not in said.err
    (folder / "good.mp4").unlink()
    assert parity(exported_bundle, "--reference-bundle", other, folder) == 1
    assert "nor can the other 1" in capsys.readouterr().err


def parity(bundle: Path, *arguments: object) -> int:
    return main(["eval", "parity", "--bundle", str(bundle), "--device", "cpu", "--threads", "1", *map(str, arguments)])


def test_a_labelled_set_against_pytorch(
    tiny_bundle: Path, tiny_weights: Path, tiny_head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = make_bench(tmp_path / "bench", clips=1)
    out = tmp_path / "out"
    before = Bundle.open(tiny_bundle).manifest.parity.gates
    checkpoints = ("--weights", tiny_weights, "--head", tiny_head)
    assert parity(tiny_bundle, *checkpoints, "--data", bench, "--clips", 2, "--out", out, "--record") == 0
    printed = capsys.readouterr().out
    assert "passed: onnxruntime-cpu fp32 agrees with PyTorch fp32" in printed
    assert "Acc., Seg., Eve. and Avg." in printed
    document = json.loads((out / "parity.json").read_bytes())
    assert document["passed"] is True
    assert document["failed_stage"] is None
    assert document["truth"] == "the dataset's"
    assert document["embeddings"]["vision"]["inputs"] == 2 * 10 + 13
    assert document["embeddings"]["vision"]["cosine"]["min"] >= 0.999999
    assert [stage["stage"] for stage in document["stages"]][-1] == "decision"
    assert set(document["measures"]) == {"acc", "seg", "eve", "avg"}
    page = (out / "parity.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 6
    assert page.count('aria-label="waveform"') >= 6
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace('http-equiv="', "")
    gates = Bundle.open(tiny_bundle).manifest.parity.gates
    assert len(gates) == len(before) + 1
    assert gates[-1].reference == "PyTorch fp32"
    assert list((tmp_path / "cache" / "ovavel" / "gates").iterdir())


def test_another_bundle_that_disagrees(
    tiny_bundle: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same encoders with another head: similarity is the first failed stage."""
    from ovavel.export.bundle import BundleContents, write_bundle
    from ovavel.training.models.imagebind.model import ImageBindConfig

    other = tmp_path / "other"
    names = Bundle.open(tiny_bundle).vocabulary.names[:-1]
    write_bundle(BundleContents(tiny_weights, names, config=ImageBindConfig.tiny()), other)
    clip = make_clip(tmp_path / "clip.mp4", duration_s=3, fps=5)
    out = tmp_path / "out"
    assert parity(tiny_bundle, "--reference-bundle", other, clip, "--out", out) == 1
    printed = capsys.readouterr().out
    assert "NOT passed: similarity" in printed
    assert "the reference as the truth" in printed
    document = json.loads((out / "parity.json").read_bytes())
    assert document["failed_stage"] == "similarity"
    assert not (tmp_path / "cache").exists(), "only PyTorch's word is remembered"
    assert "NOT passed" in (out / "parity.html").read_text()


def test_invalid_arguments_are_refused(
    exported_bundle: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", duration_s=2, fps=5)
    for arguments, reported in (
        ((), "compare on what?"),
        ((clip, "--data", tmp_path), "either on --data or on recordings"),
        ((clip, "--clips", 3), "--clips is for --data"),
        (("--data", tmp_path, "--channel", "mix"), "--channel is for recordings"),
        (("--data", tmp_path, "--channel", "left"), "--channel takes auto, first, mix or a number"),
        ((clip,), "would compare a backend with itself"),
        ((clip, "--record"), "--record is for a comparison with PyTorch"),
        ((clip, "--weights", tiny_weights), "give its checkpoint: --head"),
    ):
        assert parity(exported_bundle, *arguments) == 2
        assert reported in capsys.readouterr().err
