"""Reports of scores, from media and from a feature cache."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.eval.scored import BROKEN, NAMES, STRANGE, split_of

from ovavel.eval.accuracy.html import to_html
from ovavel.eval.accuracy.metrics import score_clips
from ovavel.eval.accuracy.protocols import score_rows
from ovavel.eval.accuracy.report import class_results, clip_scores, confusion, note, table_rows, to_csv, to_json
from ovavel.eval.accuracy.score import Report, Result, score_protocol
from ovavel.eval.datasets.encode import Encoded
from ovavel.eval.datasets.feature_cache import Features
from ovavel.eval.datasets.ovavebench import Clip, OVAVEBench
from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.cli import main

pytestmark = pytest.mark.slow


def replace_clips(features: Features, count: int) -> Features:
    """The first `count` clips."""
    return Features(
        clips=features.clips[:count], audio=features.audio[:count], vision=features.vision[:count], damaged=()
    )


def test_media_and_cache_give_the_same_report(
    data: Path,
    exported_bundle: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: TextEmbeddings,
) -> None:
    common = ["--data", str(data), "--bundle", str(exported_bundle), "--device", "cpu", "--threads", "1"]
    assert main(["eval", "score", *common, "--out", str(tmp_path / "media")]) == 0
    printed = capsys.readouterr().out
    assert main(["eval", "score", *common, "--features", str(cache.parent), "--out", str(tmp_path / "cache")]) == 0
    ours, cached = (json.loads((tmp_path / kind / "ovave-test.json").read_text()) for kind in ("media", "cache"))
    assert ours["results"] == cached["results"]
    assert ours["ran"].startswith("The bundle's own encoders and head ran over the media: onnxruntime")
    assert cached["ran"].startswith("The bundle's encoders did not run: the embeddings are those of the cache")
    assert "by onnxruntime in fp32 on cpu. Only the head ran here: onnxruntime" in cached["ran"]
    assert "encoders did not run" in (tmp_path / "cache/ovave-test.html").read_text()
    assert ours["ran"] in printed
    # The intervals are beside the scores, and in the CSV as everywhere.
    lines = list(csv.DictReader((tmp_path / "media/ovave-test.csv").read_text().splitlines()))
    assert len(lines) == 3 * 12
    for line in lines:
        result = next(each for each in ours["results"] if each["method"] == line["method"])
        low, high = result["intervals"][line["clips"]][line["measure"]]
        assert float(line["value"]) == pytest.approx(result[line["clips"]][line["measure"]])
        assert (float(line["low"]), float(line["high"])) == (low, high)
        assert low - 1e-9 <= float(line["value"]) <= high + 1e-9
    assert ours["intervals"] == {"level": 0.95, "resamples": 1000, "seed": 0}
    assert ours["clips"] == cached["clips"]
    assert ours["dataset"] == cached["dataset"]
    assert (ours["features"], cached["features"]["info"]["backend"]) == (None, "onnxruntime")
    assert ours["bundle"]["sha256"] == Bundle.open(exported_bundle).sha256
    # Every clip is in the scores or among the damaged, in all three places.
    assert (ours["dataset"]["clips"], ours["dataset"]["scored"], ours["dataset"]["damaged"]["count"]) == (8, 4, 4)
    assert sum(ours["dataset"]["damaged"]["kinds"].values()) == 4
    assert {clip["name"] for clip in ours["dataset"]["damaged"]["clips"]} == BROKEN
    assert "4 of 8 clips; 4 damaged" in printed
    html = (tmp_path / "media/ovave-test.html").read_text()
    for name in BROKEN:
        assert name in html
        assert name in printed
    # The scores are those of the decisions that are written down.
    truth, decided = (np.array([clip[key] for clip in ours["clips"]]) for key in ("truth", "decided"))
    total = score_clips(decided, truth, 5)
    assert ours["results"][0]["total"] == pytest.approx(total._asdict())
    assert np.mean([clip["avg"] for clip in ours["clips"]]) == pytest.approx(total.avg)
    assert [each["protocol"] for each in ours["results"]] == ["fused", "agreement", "agreement-without-other"]
    seen = np.array([clip["seen"] for clip in ours["clips"]])
    assert ours["results"][0]["unseen"] == pytest.approx(score_clips(decided[~seen], truth[~seen], 5)._asdict())
    # Strange names are text wherever they stand.
    assert "engine &lt;b&gt;idling" in html
    assert "<b>idling" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert "No published figures" in printed
    assert "Video-LLaMA2" not in printed


def random_report(encoded: Encoded, bundle: Bundle, backend: Backend, data: Path) -> Report:
    truth = OVAVEBench.open(data).truth(encoded.features.clips)
    labels = np.random.default_rng(0).integers(0, len(NAMES), truth.shape)
    seen = np.array([clip.seen for clip in encoded.features.clips])
    rows = score_rows(labels, truth, seen, len(NAMES))
    result = Result(protocol="fused", labels=labels, senses=None, rows=rows)
    return Report(
        root="ovave",
        split="test",
        dataset_fingerprint="0" * 64,
        names=NAMES,
        clips=encoded.features.clips,
        damaged=encoded.damaged,
        truth=truth,
        results=(result,),
        bundle=bundle,
        backend=backend.info,
        cache=None,
    )


def test_details_sum_to_the_totals(encoded: Encoded, bundle: Bundle, backend: Backend, data: Path) -> None:
    made = random_report(encoded, bundle, backend, data)
    counts = confusion(made)
    assert counts.sum() == 40
    assert np.trace(counts) / 40 == pytest.approx(made.results[0].rows.total.acc)
    classes = class_results(made)
    assert [(each.name, each.clips) for each in classes] == [(NAMES[0], 1), (NAMES[1], 1), (NAMES[2], 1), (STRANGE, 1)]
    mean = sum(each.clips * each.scores.avg for each in classes) / 4
    assert mean == pytest.approx(made.results[0].rows.total.avg)
    assert clip_scores(made)[0].avg == pytest.approx(classes[0].scores.avg)


def test_published_rows_appear_beside_their_own_split_only(encoded: Encoded, bundle: Bundle, backend: Backend) -> None:
    rng = np.random.default_rng(0)
    names = (*(f"class {c}" for c in range(67)), "other")
    clips = tuple(
        Clip(split="test", name=f"{n}", category=names[n % 67], seen=n % 67 < 46, labels=(1,) * 10) for n in range(5819)
    )
    embeddings = rng.standard_normal((2, 1, 10, 8), np.float32).repeat(len(clips), axis=1)
    features = Features(clips=clips, audio=embeddings[0], vision=embeddings[1], damaged=())
    truth = np.array([[names.index(clip.category)] * 10 for clip in clips])
    text = TextEmbeddings.shared(rng.standard_normal((68, 8), np.float32))
    result = score_protocol("agreement", split_of(features, truth), backend.head, text)
    whole = Report(
        root="ovave",
        split="test",
        dataset_fingerprint="0" * 64,
        names=names,
        clips=clips,
        damaged=encoded.damaged[:1],
        truth=truth,
        results=(result,),
        bundle=bundle,
        backend=backend.info,
        cache=None,
    )
    assert whole.as_published
    rows = table_rows(whole)
    assert [row[0] for row in rows][-2:] == ["fine-tuned", "ovavel agreement"]
    assert " ".join(rows[-2][1:]) == "72.5 61.8 54.5 62.9 64.9 55.0 47.5 55.8 67.1 56.9 49.5 57.8"
    assert whole.counted.startswith("5819 of 5820 clips; 1 damaged: 1 ")
    html = to_html(whole).decode()
    assert "MM-Pyramid" in html
    assert len(html) < 3_000_000
    assert "published figures on this split" in note(whole)
    assert "Table 2" in note(whole)
    assert b"MM-Pyramid,yes,unseen,avg,0.299,," in to_csv(whole)
    # Fifteen of 5 820 clips are no measurement of the test split.
    few = replace(
        whole,
        clips=clips[:15],
        truth=truth[:15],
        damaged=encoded.damaged[:1] * 5805,
        results=(score_protocol("agreement", split_of(replace_clips(features, 15), truth[:15]), backend.head, text),),
    )
    assert not few.as_published
    assert [row[0] for row in table_rows(few)] == ["ovavel agreement"]
    assert "WARNING: 5805 of the 5820 clips of test are damaged" in note(few)
    assert "MM-Pyramid" not in to_html(few).decode() + to_csv(few).decode() + to_json(few).decode()
    assert 'class="warning">WARNING' in to_html(few).decode()
