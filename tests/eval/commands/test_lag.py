"""`ovavel eval lag` and `ovavel eval calibrate` on a tiny dataset, through the tiny bundle's encoders."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.ovavebench_factory import break_clip, make_bench

from ovavel.eval.calibration.report import CalibrationReport
from ovavel.eval.commands.calibrate import Calibrate
from ovavel.eval.commands.lag import Lag
from ovavel.eval.commands.options import MeasuredOptions
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.eval.datasets.splits import open_inputs
from ovavel.eval.streaming.report import StreamingReport
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.commands.options import EngineOptions
from ovavel.runtime.errors import DatasetError, OutputError, UsageError

ONE_THREAD = EngineOptions(threads=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_bench(tmp_path_factory.mktemp("data") / "bench", clips=1)
    break_clip(root, OVAVEBench.open(root).select("test")[2], "no sound file")
    return root


def test_a_split_is_streamed_and_every_clip_accounted_for(
    data: Path, exported_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = MeasuredOptions(data=data, bundle=exported_bundle)
    assert Lag(dataset=dataset, out=tmp_path / "a" / "b", seeds=(3, 4), engine=ONE_THREAD).run() == 0
    out = tmp_path / "a" / "b"
    assert sorted(path.name for path in out.iterdir()) == [
        f"streaming.{kind}" for kind in ("csv", "html", "json", "svg")
    ]
    report = msgspec.json.decode((out / "streaming.json").read_bytes(), type=StreamingReport)
    damaged = OVAVEBench.open(data).select("test")[2]
    place = f"{damaged.category}/{damaged.name}"
    assert (report.clips, list(report.damaged), report.seeds) == (5, [place], (3, 4))
    assert report.damaged[place].startswith("no sound file")
    assert report.bundle_sha256 == Bundle.open(exported_bundle).sha256
    said = capsys.readouterr().out
    assert report.ran.startswith("The bundle's own encoders and head ran over the media: onnxruntime")
    assert report.ran in said
    assert "5 of 6 clips; 1 damaged" in said
    assert f"lag {report.chosen_lag} is the smallest" in said
    assert damaged.name in (out / "streaming.html").read_text()


def test_a_calibration_is_fitted_looked_at_and_written(
    data: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Bundle.open(tiny_bundle)
    dataset = MeasuredOptions(data=data, bundle=tiny_bundle)
    options = {"dataset": dataset, "out": tmp_path / "out", "engine": ONE_THREAD}
    assert Calibrate(**options).run() == 0
    assert Bundle.open(tiny_bundle).sha256 == before.sha256
    assert "--write stores it in the bundle" in capsys.readouterr().out
    assert Calibrate(**options, write=True).run() == 0
    report = msgspec.json.decode((tmp_path / "out" / "calibration.json").read_bytes(), type=CalibrationReport)
    after = Bundle.open(tiny_bundle)
    assert after.manifest.calibration == report.calibration
    assert report.bundle_sha256 == before.sha256
    assert (report.fitted.split, report.fitted.clips) == ("val", 6)
    assert (report.held_out.split, report.held_out.clips, len(report.held_out.damaged)) == ("test", 5, 1)
    assert report.calibration.ece_after == report.held_out.after.ece
    assert report.fitted.after.nll <= report.fitted.before.nll
    assert report.fitted.eve_after >= report.fitted.eve_before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "calibration.csv",
        "calibration.html",
        "calibration.json",
        "reliability.svg",
    ]
    assert "5 of 6 clips; 1 damaged" in capsys.readouterr().out


def test_without_a_split_to_hold_out_the_fit_is_looked_at(data: Path, exported_bundle: Path, tmp_path: Path) -> None:
    dataset = MeasuredOptions(data=data, bundle=exported_bundle)
    Calibrate(dataset=dataset, out=tmp_path, fit="train", held_out="none", lag=0, engine=ONE_THREAD).run()
    report = msgspec.json.decode((tmp_path / "calibration.json").read_bytes(), type=CalibrationReport)
    assert (report.held_out, report.lag, report.fitted.split) == (None, 0, "train")
    assert report.calibration.ece_after == report.fitted.after.ece


def test_what_makes_no_sense_is_refused_before_anything_runs(data: Path, exported_bundle: Path, tmp_path: Path) -> None:
    options = {"dataset": MeasuredOptions(data=data, bundle=exported_bundle), "out": tmp_path}
    with pytest.raises(UsageError, match="held-out val"):
        Calibrate(**options, held_out="val").run()
    with pytest.raises(UsageError, match="lag"):
        Calibrate(**options, lag=10).run()
    with pytest.raises(UsageError, match="seeds"):
        Lag(**options, seeds=(1, 1)).run()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        Lag(**{**options, "out": tmp_path / "file" / "deeper"}).run()
    with pytest.raises(OutputError, match="choose another folder"):
        Lag(**{**options, "out": tmp_path / "file"}).run()
    with pytest.raises(DatasetError):
        Lag(dataset=MeasuredOptions(data=tmp_path, bundle=exported_bundle), out=tmp_path).run()


def test_material_is_the_datasets_names_and_the_bundles_embeddings(data: Path, exported_bundle: Path) -> None:
    with open_inputs(data, exported_bundle, threads=1) as inputs:
        split = inputs.split("val")
        assert inputs.text.is_shared
        assert inputs.text.audio.shape == (7, 32)
        assert split.audio.shape == split.vision.shape == (6, 10, 32)
        assert split.truth.shape == (6, 10)
        assert split.seen.tolist() == [clip.seen for clip in split.clips]
        np.testing.assert_allclose(np.linalg.norm(inputs.text.audio, axis=1), 1, atol=1e-5)
        with pytest.raises(UsageError, match="no split"):
            inputs.split("tset")
