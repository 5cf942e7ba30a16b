from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovavel.eval.accuracy.protocols import fused_labels, score_rows
from ovavel.eval.streaming.measure import (
    RULES,
    Curve,
    LagResult,
    Measures,
    chosen_lag,
    final_scores,
    joined_labels,
    measure_streaming,
    stream_labels,
    stream_scores,
)
from ovavel.eval.streaming.report import StreamingReport, to_csv, to_html, to_json, to_svg
from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.types import BUFFER, Segment

D, C = 16, 5
NAMES = ("dog", "car", "bell", "horn", "other")
RNG = np.random.default_rng(0)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


TEXT = TextEmbeddings.shared(unit(RNG.standard_normal((C, D))))


def head(audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
    """A head whose every output depends on every segment it sees, and on their order."""
    weight = np.linspace(1, 2, audio.shape[1], dtype=np.float32)[:, None]
    similarities = [
        cosine_similarity(unit(x + (weight * x).mean(axis=1, keepdims=True)), text.vision) for x in (audio, vision)
    ]
    return HeadOutput(*similarities, fused_score(*similarities))


def streams(count: int, length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth (B, S) in runs, and embeddings (B, S, D) near it, noisy enough for context to matter."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, C, (count, -(-length // 3))), 3, axis=1)[:, :length]
    audio, vision = (unit(TEXT.vision[truth] + 0.35 * rng.standard_normal((*truth.shape, D))) for _ in range(2))
    return truth, audio, vision


def localized(audio: np.ndarray, vision: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Scores of one stream (S, D) by the runtime's own Localizer: final (S, C), mean (S, C) and final labels."""
    localizer = Localizer(head, Vocabulary(names=NAMES, embeddings=TEXT), lag=lag)
    seen: dict[int, list[np.ndarray]] = {}
    final = {}
    for i in range(len(audio)):
        segment = Segment(index=i, start_s=float(i), vision=vision[i], audio=audio[i])
        for s in localizer.push(segment):
            seen.setdefault(s.index, []).append(s.scores)
            if s.final:
                final[s.index] = s
    for s in localizer.flush():  # re-scores the last buffer, which was counted when it came
        final[s.index] = s
    in_order = [final[i] for i in range(len(audio))]
    mean = np.stack([np.mean(seen[i], axis=0) for i in range(len(audio))])
    return np.stack([s.scores for s in in_order]), mean, [NAMES.index(s.label) for s in in_order]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 25), st.integers(0, BUFFER - 1), st.integers(0, 10**6))
def test_streams_score_as_the_localizer_does(length: int, lag: int, seed: int) -> None:
    _, audio, vision = streams(3, length, seed)
    scores = stream_scores(head, audio, vision, TEXT)
    labels = stream_labels(head, audio, vision, TEXT)
    for b in range(3):
        final, mean, decided = localized(audio[b], vision[b], lag)
        np.testing.assert_allclose(scores[b, :, lag], final, atol=1e-6)
        assert labels[RULES.index("latest score"), lag, b].tolist() == decided
        assert labels[RULES.index("mean over buffers"), lag, b].tolist() == fused_labels(mean).tolist()


def test_at_lag_nine_a_clip_alone_is_the_offline_clip() -> None:
    _, audio, vision = streams(4, 10)
    final = final_scores(head, audio, vision, TEXT, lag=9, batch=3)
    np.testing.assert_allclose(final, head(audio, vision, TEXT).score, atol=1e-6)


@pytest.mark.parametrize(("clips", "stream_clips"), [(7, 3), (6, 3), (2, 60), (21, 2)])
def test_joined_clips_are_the_stream_of_the_localizer_and_return_to_their_places(
    monkeypatch: pytest.MonkeyPatch, clips: int, stream_clips: int
) -> None:
    monkeypatch.setattr("ovavel.eval.streaming.measure._BATCH", 4)
    truth, audio, vision = streams(clips, 10)
    seen = np.arange(clips) % 2 == 0
    done: list[int] = []
    curves = measure_streaming(
        head,
        audio,
        vision,
        TEXT,
        truth,
        seen,
        seeds=(5,),
        stream_clips=stream_clips,
        progress=lambda _what, each, *_: done.append(each),
    )
    assert done[-1] == 2 * clips
    order = np.random.default_rng(5).permutation(clips)
    labels = np.empty((clips, 10), int)
    for start in range(0, clips, stream_clips):
        chosen = order[start : start + stream_clips]
        stream = (sense[chosen].reshape(-1, D) for sense in (audio, vision))
        labels[chosen] = np.reshape(localized(*stream, lag=4)[2], (-1, 10))
    rows = score_rows(labels, truth, seen, C)
    joined = next(c for c in curves if c.joined and c.rule == "latest score")
    assert [(c.joined, c.rule) for c in curves] == [(False, r) for r in RULES] + [(True, r) for r in RULES]
    result = joined.lags[4]
    for ours, theirs in ((result.total, rows.total), (result.seen, rows.seen), (result.unseen, rows.unseen)):
        assert tuple(msgspec.structs.astuple(ours)) == pytest.approx(theirs)
    assert result.acc_at == pytest.approx((labels == truth).mean(axis=0))
    assert result.avg_deviation == 0


def test_figures_of_joined_clips_are_means_over_orders_that_seeds_repeat() -> None:
    truth, audio, vision = streams(12, 10)
    arguments = (head, audio, vision, TEXT, truth, np.ones(12, bool))
    one, other = (measure_streaming(*arguments, seeds=(s,), stream_clips=4) for s in (0, 1))
    both = measure_streaming(*arguments, seeds=(0, 1), stream_clips=4)
    assert both == measure_streaming(*arguments, seeds=(0, 1), stream_clips=4)
    a, b, c = (curves[2].lags[2].total.avg for curves in (one, other, both))
    assert a != b
    assert c == pytest.approx((a + b) / 2)
    assert both[2].lags[2].avg_deviation == pytest.approx(abs(a - b) / 2)
    assert both[0] == one[0]
    assert both[0].lags[0].unseen is None


@pytest.mark.parametrize("options", [{"seeds": ()}, {"seeds": (1, 1)}, {"seeds": (-1,)}, {"stream_clips": 1}])
def test_invalid_arguments_are_refused(options: dict[str, object]) -> None:
    truth, audio, vision = streams(3, 10)
    with pytest.raises(UsageError):
        measure_streaming(head, audio, vision, TEXT, truth, np.ones(3, bool), **{"seeds": (0,), **options})


def curve(averages: list[float], *, joined: bool = True, rule: str = RULES[0]) -> Curve:
    def measures(avg: float) -> Measures:
        return Measures(acc=avg, seg=avg, eve=avg, avg=avg)

    spread = 0.01 if joined else None
    lags = (
        LagResult(lag=i, total=measures(a), seen=None, unseen=None, avg_deviation=spread, acc_at=(a,) * 10)
        for i, a in enumerate(averages)
    )
    return Curve(joined=joined, rule=rule, lags=tuple(lags))


def test_the_smallest_lag_within_the_tolerance_is_chosen() -> None:
    assert chosen_lag(curve([0.5, 0.594, 0.5951, 0.6, 0.599])) == 2
    assert chosen_lag(curve([0.6, 0.5])) == 0
    assert chosen_lag(curve([0.5, 0.594, 0.5951, 0.6]), tolerance=0) == 3


def test_the_report_can_be_read_and_shown() -> None:
    values = [0.5 + 0.01 * i for i in range(10)]
    report = StreamingReport(
        dataset="ab" * 32,
        split="test",
        clips=12,
        damaged={"<b>x": "no such file"},
        classes=C,
        bundle_sha256="cd" * 32,
        model="<script>",
        ran="Only the <i>head</i> ran.",
        decided_by="positive",
        seeds=(0, 1),
        stream_clips=60,
        tolerance=0.005,
        chosen_lag=9,
        chosen_lag_alone=3,
        curves=tuple(curve(values, joined=joined, rule=rule) for joined in (False, True) for rule in RULES),
    )
    assert msgspec.json.decode(to_json(report), type=StreamingReport) == report
    assert json.loads(to_json(report))["curves"][0]["lags"][3]["total"]["avg"] == pytest.approx(0.53)
    svg = ET.fromstring(to_svg(report))
    circles = svg.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 4 * 4 * 10
    html = to_html(report).decode()
    assert "<script" not in html
    assert "&lt;b&gt;x" in html
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "the smallest whose Avg." in html
    assert "Only the &lt;i&gt;head&lt;/i&gt; ran." in html
    rows = list(csv.DictReader(to_csv(report).decode().splitlines()))
    found = {tuple(row[key] for key in ("fed", "rule", "lag", "clips", "measure")): float(row["value"]) for row in rows}
    for each in report.curves:
        for lag in each.lags:
            key = ("joined" if each.joined else "alone", each.rule, str(lag.lag), "total", "avg")
            assert found[key] == lag.total.avg


def test_joined_labels_are_those_of_the_curve() -> None:
    truth, audio, vision = streams(7, BUFFER)
    seen = np.array([True, False] * 3 + [True])
    curves = measure_streaming(head, audio, vision, TEXT, truth, seen, seeds=[3], stream_clips=3)
    curve = next(each for each in curves if each.joined and each.rule == RULES[0])
    for lag in (0, 2, BUFFER - 1):
        labels = joined_labels(head, audio, vision, TEXT, lag=lag, seed=3, stream_clips=3)
        assert score_rows(labels, truth, seen, C).total.avg == pytest.approx(curve.lags[lag].total.avg)
