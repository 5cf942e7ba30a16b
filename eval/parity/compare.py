"""Compare two backends on the same windows, stage by stage and decision by decision (docs/parity.md).

They run one after the other, so that only one is in memory. Each stage but the last gets the reference's outputs of the
stage before, so that one fault shows in one stage.

Shapes: D embedding size, C names with the background last, T seconds of a clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ovavel.eval.accuracy.metrics import Scores
from ovavel.eval.parity.clips import (
    Clips,
    DatasetClips,
    adversarial_frames,
    adversarial_waveforms,
)
from ovavel.eval.parity.figures import Decisions, EmbeddingFigures, Place, compare_decisions, compare_graph
from ovavel.eval.parity.runs import BackendSpec, Run, all_embeddings, run_backend
from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import TEXT_GRAPHS
from ovavel.runtime.bundle.manifest import Gate
from ovavel.runtime.bundle.vocabulary import normalize_text
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.preprocess import sound_rate
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.verification.compare import (
    HeadDifferences,
    Stage,
    StageCheck,
    check_embeddings,
    check_preprocessing,
    check_score,
    check_similarity,
    check_vocabulary,
    compare_embeddings,
    compare_heads,
    make_gate,
)
from ovavel.runtime.verification.golden import GOLDEN, Golden
from ovavel.runtime.verification.requirements import Requirement, loosest, requirement
from ovavel.runtime.verification.samples import sample_texts

__all__ = ["PYTORCH", "ParityReport", "compare_backends"]

PYTORCH = "PyTorch fp32"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParityReport:
    """Result of `ovavel eval parity`."""

    bundle: Bundle
    reference: str
    """The reference, in a few words."""
    candidate: str
    clips: str
    """The media compared on, in a few words."""
    names: tuple[str, ...]
    embeddings: tuple[EmbeddingFigures, ...]
    decisions: Decisions
    stages: tuple[StageCheck, ...]
    gate: Gate
    candidate_info: BackendInfo

    @property
    def failed_stage(self) -> Stage | None:
        """The first stage that failed; None if all passed."""
        return next((each.stage for each in self.stages if each.failure), None)


def compare_backends(
    reference: BackendSpec, candidate: BackendSpec, clips: Clips, *, progress: Progress = no_progress
) -> ParityReport:
    """Run both backends on `clips` and on adversarial inputs, and compare them.

    Raises:
        UsageError: the two make embeddings of different sizes, or hear sound at different rates.
        DatasetError, MediaError, BundleError, CheckpointError, DeviceError: what cannot be read or run, and why.
    """
    encoders = candidate.bundle.manifest.encoders
    sizes = [each.bundle.manifest.encoders.sizes for each in (reference, candidate)]
    if sizes[0] != sizes[1]:
        theirs_told, ours_told = (" and ".join(map(str, dict.fromkeys(each))) for each in sizes)
        raise UsageError(f"the reference makes embeddings of size {theirs_told} and the candidate of {ours_told}")
    rates = [sound_rate(each.bundle.manifest.encoders) for each in (reference, candidate)]
    if rates[0] != rates[1]:
        raise UsageError(
            f"the reference hears sound at {rates[0]} Hz and the candidate at {rates[1]} Hz; compare encoders of a kind"
        )
    if _same(reference, candidate):
        raise UsageError(
            "this would compare a backend with itself; give --weights for PyTorch, another --precision, --device or "
            "--backend, or a --reference-bundle"
        )
    vocabulary = candidate.bundle.vocabulary
    labelled = isinstance(clips, DatasetClips)
    names = clips.dataset.names if isinstance(clips, DatasetClips) else vocabulary.names
    theirs = run_backend(reference, clips, names, progress)
    ours = run_backend(candidate, clips, names, progress, theirs)
    places = [[Place(clip.name, second) for second in clip.seconds] for clip in theirs.clips]
    flat = [place for each in places for place in each]
    seen, heard = ([*map(Place, each), *flat] for each in (adversarial_frames(), adversarial_waveforms()))
    figures = [
        compare_graph("vision", all_embeddings(ours, "vision"), all_embeddings(theirs, "vision"), seen),
        compare_graph("audio", all_embeddings(ours, "audio"), all_embeddings(theirs, "audio"), heard),
    ]
    progress("comparing texts")
    graphs = set(encoders.text_graphs)
    if all(graphs <= each.bundle.manifest.graphs.keys() or each.backend == "torch" for each in (reference, candidate)):
        texts = sample_texts(vocabulary.names)
        text_places = [Place(repr(text[:30])) for text in texts]
        a, b = candidate.run_text(texts), reference.run_text(texts)
        senses = encoders.text_senses
        figures.extend(compare_graph(encoders.of(each).text, a.of(each), b.of(each), text_places) for each in senses)
    truth = clips.truth([clip.name for clip in theirs.clips]) if isinstance(clips, DatasetClips) and labelled else None
    decisions = compare_decisions(ours.outputs, theirs.outputs, places, names, truth)
    learned = candidate.bundle.manifest.fusion.decision == "learned"
    heads = [compare_heads(a, b, learned=learned) for a, b in zip(ours.given, theirs.outputs, strict=True)]
    stages = tuple(_stages(reference, candidate, ours, figures, heads, decisions, places))
    return ParityReport(
        bundle=candidate.bundle,
        reference=theirs.summary,
        candidate=ours.summary,
        clips=clips.summary,
        names=tuple(names),
        embeddings=tuple(figures),
        decisions=decisions,
        stages=stages,
        candidate_info=ours.info,
        gate=make_gate(
            candidate.bundle,
            ours.info,
            stages,
            reference=theirs.summary,
            inputs=sum(len(each.places) for each in figures if each.graph not in TEXT_GRAPHS),
            min_cosine={each.graph: float(each.found.cosine.min()) for each in figures},
            max_abs_difference={
                **{each.graph: float(each.found.away.max()) for each in figures},
                "head": max(each.similarity for each in heads),
            },
            decisions=decisions.alike,
        ),
    )


def _same(reference: BackendSpec, candidate: BackendSpec) -> bool:
    """Whether both run the same graphs on the same engine."""
    if "torch" in (reference.backend, candidate.backend) or reference.bundle.sha256 != candidate.bundle.sha256:
        return False
    found = []
    for each in (reference, candidate):
        backend = each.open(("head",))
        backend.close()
        engine = backend.info.engine
        found.append((engine, [each.bundle.precision(graph, engine, each.precision) for graph in ("vision", "audio")]))
    return found[0] == found[1]


def _stages(
    reference: BackendSpec,
    candidate: BackendSpec,
    ours: Run,
    figures: Sequence[EmbeddingFigures],
    heads: Sequence[HeadDifferences],
    decisions: Decisions,
    places: Sequence[Sequence[Place]],
) -> Iterator[StageCheck]:
    """Check everything against the limits of the candidate's precision, in pipeline order."""
    golden = Golden.load(candidate.bundle) if GOLDEN in candidate.bundle.manifest.files else None
    if golden:
        yield from check_preprocessing(golden, candidate.bundle.manifest.encoders)
    precision = ours.info.precision
    for each in figures:
        limit = requirement("fp32" if each.graph in TEXT_GRAPHS else precision[each.graph])
        stage: Stage = "vision" if each.graph == "vision" else "audio" if each.graph == "audio" else "text"
        yield check_embeddings(stage, limit, each.found, [str(place) for place in each.places])
    yield _vocabulary(golden, reference, candidate)
    limit = requirement(precision["head"])
    clips = [str(where[0]) for where in places]
    yield check_similarity(dict(zip(clips, (each.similarity for each in heads), strict=True)), limit)
    yield check_score(dict(zip(clips, (each.score for each in heads), strict=True)), limit)
    yield _decision(decisions, loosest(precision.values()))


def _vocabulary(golden: Golden | None, reference: BackendSpec, candidate: BackendSpec) -> StageCheck:
    """Check the text embeddings of the candidate's vocabulary against the reference's."""
    vocabulary = candidate.bundle.vocabulary
    found = check_vocabulary(golden, vocabulary) if golden else None
    if found and found.failure:
        return found
    names = vocabulary.names if len(vocabulary) <= 128 else (*vocabulary.names[:127], vocabulary.background)
    rows = vocabulary.embeddings if len(vocabulary) <= 128 else vocabulary.embeddings[[*range(127), -1]]
    limit, wanted = requirement("fp32"), reference.embed(names)
    checks = [
        check_embeddings("vocabulary", limit, compare_embeddings(rows.of(each), wanted.of(each)), names, of="names")
        for each in candidate.bundle.manifest.encoders.text_senses
    ]
    check = next((each for each in checks if each.failure), checks[0])
    theirs = reference.bundle.vocabulary.background
    if normalize_text(vocabulary.background) != normalize_text(theirs):
        moved = f"the last name is {vocabulary.background!r}, but the reference's background is {theirs!r}"
        return replace(check, failure=moved)
    return check


def _decision(decisions: Decisions, limit: Requirement) -> StageCheck:
    summary = f"{decisions.alike:.2%} of {decisions.seconds} seconds agree"
    if limit.decisions is not None and decisions.alike < limit.decisions:
        return StageCheck(stage="decision", summary=summary, failure=f"{summary}, needs {limit.decisions:.1%}")
    for name, ours, theirs in zip(Scores._fields, decisions.candidate, decisions.reference, strict=True):
        if ours < limit.measures * theirs:
            lost = (
                f"{name.capitalize()}. {ours:.2%} is {ours / theirs:.1%} of the reference's, needs {limit.measures:.0%}"
            )
            if decisions.flips:
                clearest = decisions.flips[0].reference_margin
                lost += f" (seconds flipped: {len(decisions.flips)}, margin of the clearest {clearest:.3f})"
            return StageCheck(stage="decision", summary=summary, failure=lost)
    return StageCheck(stage="decision", summary=summary)
