"""What holds for heads of every kind: gradients, reach, and the stream."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.made_heads import KINDS, embeddings, made, noisy
from torch import Tensor

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.pipeline.localizer import BUFFER, Localizer
from ovavel.runtime.types import FusionKind, Segment, SegmentScores
from ovavel.training.heads.base import Head, make_head
from ovavel.training.heads.temporal import HeadGraph, TemporalHead

HEADS = {
    **{kind: noisy(made(kind)) for kind in KINDS},
    "linear": noisy(made("linear")),
    "cross-modal": noisy(made("cross-modal")),
    "mm-pyramid of 2": noisy(made("mm-pyramid", levels=2)),
    "complex over linear": noisy(made("complex", trunk=TemporalHead(1, 16, kind="linear"))),
}
every = pytest.mark.parametrize("name", HEADS)


@pytest.mark.parametrize("kind", [*KINDS, "mm-pyramid of 2"])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_right(kind: str, training: bool) -> None:
    small = {"dim": 8, "levels": 2} if kind == "mm-pyramid of 2" else {"dim": 8}
    head = noisy(made(kind.removesuffix(" of 2"), **small)).double().requires_grad_().train(training)  # type: ignore[arg-type]
    if training:
        for part in head.modules():
            if hasattr(part, "share"):
                part.share = 0.0
    graph = HeadGraph(head)
    weights = dict(graph.named_parameters())
    audio, vision, text = (x.double() for x in embeddings(segments=4, dim=8))

    def run(audio: Tensor, vision: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = torch.func.functional_call(
            graph, dict(zip(weights, values, strict=True)), (audio, vision, text, text)
        )
        return found

    inputs = (audio.requires_grad_(), vision.requires_grad_(), *weights.values())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    gradients = torch.autograd.grad(sum(x.square().sum() for x in run(*inputs)), inputs[2:])  # type: ignore[arg-type]
    silent = {name for name, gradient in zip(weights, gradients, strict=True) if not gradient.any()}
    # A single level has no other to attend to, whatever the query.
    idle = re.compile(r"(audio|vision)\.layer\.(attention\.[qk]|norm1)\.")
    assert all(kind == "mm-pyramid" and idle.search(name) for name in silent)


@every
@settings(max_examples=12, deadline=None)
@given(st.integers(1, 12), st.data())
def test_a_head_sees_as_far_as_it_says(name: str, segments: int, data: st.DataObject) -> None:
    head = HEADS[name]
    graph = HeadGraph(head)
    audio, vision, text = embeddings(segments=segments)
    changed = data.draw(st.integers(0, segments - 1))
    other_audio, other_vision = audio.clone(), vision.clone()
    other_audio[:, changed], other_vision[:, changed] = -vision[:, changed], audio[:, changed]
    with torch.no_grad():
        before, after = graph(audio, vision, text, text), graph(other_audio, other_vision, text, text)
    moved = ((before.score - after.score).abs() > 1e-5).any(dim=-1).any(dim=0)
    assert moved[changed]
    for second in range(segments):
        far = after_it = second - changed
        limit = head.reach.before if after_it > 0 else head.reach.after
        if limit is not None and abs(far) > limit:
            assert not moved[second], (second, changed)


@every
def test_reach_is_not_said_to_be_more_than_it_is(name: str) -> None:
    head = HEADS[name]
    graph = HeadGraph(head)
    audio, vision, text = embeddings(clips=8, segments=13, seed=3)
    other = torch.roll(audio, 1, 0)
    for changed in (0, 12):
        mixed = audio.clone()
        mixed[:, changed] = other[:, changed]
        with torch.no_grad():
            before, after = graph(audio, vision, text, text), graph(mixed, vision, text, text)
        moved = (before.score != after.score).any(dim=-1).any(dim=0).nonzero().flatten()
        limit = head.reach.before if changed == 0 else head.reach.after
        assert int((moved - changed).abs().max()) == (12 if limit is None else min(limit, 12))
    assert (head.reach == (0, 0)) == (name in ("ave", "linear"))


@every
def test_seconds_and_names_may_stand_in_any_order(name: str) -> None:
    head = HEADS[name]
    graph = HeadGraph(head)
    audio, vision, text = embeddings()
    seconds, names = (torch.from_numpy(np.random.default_rng(0).permutation(n)) for n in (10, 5))
    with torch.no_grad():
        plain, renamed = (graph(audio, vision, each, each) for each in (text, text[names]))
        mixed = graph(audio[:, seconds], vision[:, seconds], text, text)
        alone = graph(audio[1:], vision[1:], text, text)
    for one, other in zip(plain, renamed, strict=True):
        torch.testing.assert_close(other, one[..., names], atol=1e-5, rtol=0)
    for one, other in zip(plain, alone, strict=True):
        torch.testing.assert_close(other, one[1:], atol=1e-5, rtol=0)
    ordered = name.startswith(("mm-pyramid", "complex"))  # convolutions know what is next to what
    same = torch.allclose(mixed.score, plain.score[:, seconds], atol=1e-5)
    assert same != ordered


def runs(head: Head) -> tuple[HeadGraph, FusionKind]:
    return HeadGraph(head), "learned" if head.score == "learned" else "positive"


def equal(a: SegmentScores, b: SegmentScores) -> bool:
    arrays = ("scores", "vision_similarity", "audio_similarity")
    return (a.label, a.score, a.context) == (b.label, b.score, b.context) and all(
        np.array_equal(getattr(a, each), getattr(b, each)) for each in arrays
    )


@every
@pytest.mark.parametrize("lag", range(BUFFER))
def test_the_stream_equals_the_clip_at_every_lag(name: str, lag: int) -> None:
    graph, fusion = runs(HEADS[name])

    def run(audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        with torch.inference_mode():
            return HeadOutput(*(x.numpy() for x in graph(*map(torch.tensor, (audio, vision, text.audio, text.vision)))))

    audio, vision, names = (x.numpy() for x in embeddings(clips=1))
    text = TextEmbeddings.shared(names)
    vocabulary = Vocabulary(names=("dog", "car", "bell", "rain", "other"), embeddings=text)
    clip = [Segment(index=i, start_s=float(i), vision=vision[0, i], audio=audio[0, i]) for i in range(10)]
    offline = Localizer(run, vocabulary, rule=Rule(kind=fusion))
    stream = Localizer(run, vocabulary, lag=lag, rule=Rule(kind=fusion))
    for pushed, segment in enumerate(clip, start=1):
        scores = stream.push(segment)
        whole = offline.score(clip[:pushed])
        assert [each.index for each in scores] == list(range(max(0, pushed - 1 - lag), pushed))
        assert all(equal(each, whole[each.index]) for each in scores)
    if HEADS[name].score == "learned":
        np.testing.assert_array_equal(whole[0].scores, run(audio, vision, text).score[0, 0])


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("temporal", 4_209_152), ("linear", 2_099_200), ("cross-modal", 4_209_152), ("ave", 4_198_400),
        ("psp", 6_293_504), ("cmra", 54_597_632), ("mm-pyramid", 58_438_488), ("complex", 4_209_152 + 31_874),
    ],
)  # fmt: skip
def test_a_head_counts_its_parameters(kind: str, size: int) -> None:
    with torch.device("meta"):
        settings = {"trunk": TemporalHead()} if kind == "complex" else {}
        assert make_head(kind, dim=1024, **settings).parameter_count == size
        assert TemporalHead(0).parameter_count == 0
