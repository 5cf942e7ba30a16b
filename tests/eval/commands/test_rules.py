"""Decision rules through the commands, on a tiny dataset and the tiny bundle's encoders."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.ovavebench_factory import make_bench

from ovavel.eval.calibration.report import CalibrationReport
from ovavel.eval.commands.calibrate import Calibrate
from ovavel.eval.commands.lag import Lag
from ovavel.eval.commands.options import MeasuredOptions
from ovavel.eval.commands.score import Score, ScoredEngineOptions
from ovavel.eval.streaming.report import StreamingReport
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import names_fingerprint
from ovavel.runtime.commands.options import EngineOptions
from ovavel.runtime.commands.vocab import Add, List, Remove
from ovavel.runtime.errors import UsageError, VocabularyError

ONE_THREAD = EngineOptions(threads=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bench(tmp_path_factory.mktemp("data") / "bench", clips=1)


def test_rules_are_scored_beside_the_protocols(
    data: Path, exported_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score = Score(
        dataset=MeasuredOptions(data=data, bundle=exported_bundle),
        protocols=("fused", "agreement"),
        rules=("published", "agreement", "av2a", "temperatures", "clip-prior", "agreement+debiased"),
        out=tmp_path,
        engine=ScoredEngineOptions(threads=1),
    )
    assert score.run() == 0
    report = json.loads((tmp_path / "ovave-test.json").read_bytes())
    found = {each["protocol"]: each for each in report["results"]}
    assert list(found) == ["fused", "agreement", *(f"rule {name}" for name in score.rules)]
    assert found["rule published"]["total"] == found["fused"]["total"]
    assert found["fused"]["rule"] is None
    assert found["rule temperatures"]["rule"]["parameters"].keys() == {"audio_temperature", "vision_temperature"}
    assert found["rule agreement+debiased"]["rule"]["reference"]["seconds"] == 60
    assert "ovavel rule av2a" in capsys.readouterr().out
    with pytest.raises(UsageError, match="fitted on val, and would be measured on the same clips"):
        Score(
            dataset=MeasuredOptions(data=data, bundle=exported_bundle),
            split="val",
            rules=("temperatures",),
            engine=ScoredEngineOptions(threads=1),
        ).run()


def test_without_the_head_rules_see_the_embeddings(data: Path, exported_bundle: Path, tmp_path: Path) -> None:
    dataset = MeasuredOptions(data=data, bundle=exported_bundle)
    Lag(dataset=dataset, rule="agreement", training_free=True, seeds=(0,), out=tmp_path, engine=ONE_THREAD).run()
    report = msgspec.json.decode((tmp_path / "streaming.json").read_bytes(), type=StreamingReport)
    assert report.decided_by == "agreement"
    alone = report.curve(joined=False, rule="latest score")
    # Without a head and across seconds, agreement knows no context: waiting changes nothing.
    assert len({lag.total for lag in alone.lags}) == 1
    with pytest.raises(UsageError, match="benchmarks only"):
        Lag(dataset=dataset, rule="clip-prior", out=tmp_path, engine=ONE_THREAD).run()
    with pytest.raises(UsageError, match="--training-free is for --rule"):
        Lag(dataset=dataset, training_free=True, out=tmp_path, engine=ONE_THREAD).run()


def test_a_rule_is_fitted_compared_and_written(
    data: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = MeasuredOptions(data=data, bundle=tiny_bundle)
    options = {"dataset": dataset, "out": tmp_path / "out", "engine": ONE_THREAD}
    assert Calibrate(**options, rule="temperatures+debiased", write=True).run() == 0
    report = msgspec.json.decode((tmp_path / "out" / "calibration.json").read_bytes(), type=CalibrationReport)
    manifest = Bundle.open(tiny_bundle).manifest
    assert manifest.fusion.decides == report.rule
    assert manifest.calibration == report.calibration
    assert report.calibration.fusion == report.rule.name == "temperatures+debiased"
    names = ["positive", "agreement", "published", "temperatures+debiased"]
    assert [(each.split, each.rule) for each in report.rules] == [(s, n) for s in ("val", "test") for n in names]
    said = capsys.readouterr().out
    assert "it decides by temperatures+debiased" in said
    assert "not with its own names: the reference statistics" in said, "the bundle's names are not the dataset's"
    # A bundle that was given a rule keeps it when it is calibrated again; its texts of the background decide with it.
    words = Bundle.open(tiny_bundle).vocabulary
    Bundle.open(tiny_bundle).save_vocabulary(words.background_added(["silence"], words.embeddings[:1]))
    assert Calibrate(**options, write=True).run() == 0
    manifest = Bundle.open(tiny_bundle).manifest
    assert manifest.fusion.decides == report.rule
    assert manifest.calibration
    assert manifest.calibration.names == names_fingerprint(report.rule.reference.names, ("silence",))
    with pytest.raises(UsageError, match="benchmarks only"):
        Calibrate(**options, rule="clip-prior").run()


def test_texts_of_the_background_are_added_listed_and_removed(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Bundle.open(tiny_bundle).vocabulary
    Add(names=("silence", "an empty room"), background=True, bundle=tiny_bundle, threads=1).run()
    assert "further texts of the background: silence, an empty room" in capsys.readouterr().out
    after = Bundle.open(tiny_bundle)
    assert after.vocabulary.names == before.names
    assert after.vocabulary.background_texts == ("silence", "an empty room")
    assert after.manifest.vocabulary == after.vocabulary.version, "it stays verified"
    with pytest.raises(VocabularyError, match="already has 'silence'"):
        Add(names=("Silence",), bundle=tiny_bundle, threads=1).run()
    List(bundle=tiny_bundle).run()
    assert capsys.readouterr().out.splitlines()[-2:] == ["# background: silence", "# background: an empty room"]
    Remove(names=("silence", "an empty room"), bundle=tiny_bundle).run()
    assert Bundle.open(tiny_bundle).vocabulary.version == before.version


def test_prompts_average_the_embeddings_of_their_sentences(tiny_bundle: Path) -> None:
    prompts = ("a photo of {}", "the sound of {}")
    Add(names=("glass", *(prompt.format("glass") for prompt in prompts)), bundle=tiny_bundle, threads=1).run()
    plain = Bundle.open(tiny_bundle).vocabulary
    rows = [plain.embeddings.vision[plain.index(prompt.format("glass"))].astype(np.float64) for prompt in prompts]
    expected = sum(row / np.linalg.norm(row) for row in rows)
    expected /= np.linalg.norm(expected)
    Remove(names=("glass",), bundle=tiny_bundle).run()
    Add(names=("glass",), prompts=prompts, bundle=tiny_bundle, threads=1).run()
    vocabulary = Bundle.open(tiny_bundle).vocabulary
    np.testing.assert_allclose(vocabulary.embeddings.vision[vocabulary.index("glass")], expected, atol=1e-5)
    for wrong, said in ((("a photo",), "must have one {}"), (("{} {}",), "must have one {}"), (("{}", "{}"), "twice")):
        with pytest.raises(VocabularyError, match=said):
            Add(names=("bell",), prompts=wrong, bundle=tiny_bundle, threads=1).run()
    with pytest.raises(VocabularyError, match="tokens, and at most"):
        Add(names=("bell",), prompts=("very " * 90 + "{}",), bundle=tiny_bundle, threads=1).run()
    with pytest.raises(UsageError, match="--prompts is for names"):
        Add(names=("hum",), prompts=prompts, background=True, bundle=tiny_bundle, threads=1).run()
    assert Bundle.open(tiny_bundle).vocabulary.version == vocabulary.version
