"""Writes a bundle: whole and verified, or not at all.

Many lines: it is one sequence of stages with what they share, and each stage alone says little.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ovavel.export.golden import GoldenWriter, checked
from ovavel.export.graphs import OPSET, save_variant, traced
from ovavel.export.inputs import calibration_inputs
from ovavel.export.place import check_exact, check_place
from ovavel.export.precision.activations import Activation, observe_activations
from ovavel.export.precision.passes import FITTED
from ovavel.export.speed import fastest, times_faster
from ovavel.export.verify import Reference, check_graph, check_pooled, encoder_inputs, head_inputs, reference
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.calibration import Calibration
from ovavel.runtime.bundle.graphs import SENSES, TEXT_GRAPHS, Graph
from ovavel.runtime.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Fusion,
    Manifest,
    Model,
    Parity,
    ParityCheck,
)
from ovavel.runtime.bundle.precision import ANY, ENGINE_PRECISIONS, EXACT_ON, POOLED, Precision, of_graph, preferred
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Tokenizer, Vocabulary, check_names
from ovavel.runtime.errors import ExportError, MissingExtraError, PrecisionError, UsageError
from ovavel.runtime.pipeline.texts import averaged, sentences
from ovavel.runtime.system.files import whole_folder
from ovavel.runtime.system.progress import Progress, no_progress, part_of
from ovavel.runtime.types import FusionKind, Sense

if TYPE_CHECKING:
    from torch import nn

    from ovavel.training.heads.base import Head, ScoreKind
    from ovavel.training.models.imagebind.model import ImageBindConfig, PatchTower
    from ovavel.training.models.source import AnyPaths
    from ovavel.training.models.source import Model as EncoderModel

__all__ = ["BundleContents", "need_libraries", "write_bundle"]

# B batch, D embedding size, C classes with the background last

BACKGROUND = "other"
IMAGEBIND_LICENCE = (
    "ImageBind's weights are under CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/): "
    "attribution, no commercial use, and what is made from them stays under the same licence"
)

_COMPARED = ("onnx", "onnxruntime", "onnxscript", "torch")
_TEXT_BATCH = 16
_SHARES = {
    "vision": 0.4,
    "audio": 0.1,
    "text": 0.25,
    "vision_text": 0.1,
    "audio_text": 0.15,
    "head": 0.05,
    "check": 0.1,
}
"""About how much of the time each graph and the bundle's check of itself take; hashing takes the rest."""


@dataclasses.dataclass(frozen=True, slots=True)
class BundleContents:
    """What a bundle is made of."""

    weights: AnyPaths
    """ImageBind checkpoint, `.pth` or safetensors; or the two folders of CLIP and of CLAP, as transformers writes them.
    """
    names: Sequence[str]
    """Class names without the background."""
    _: dataclasses.KW_ONLY
    head: str | os.PathLike[str] | None = None
    """Checkpoint of a temporal head; without one the bundle decides without fine-tuning."""
    config: ImageBindConfig | None = None
    """Size of ImageBind; the published one by default."""
    tokenizer: str | os.PathLike[str] | None = None
    """`tokenizer.json` of an ImageBind with a tokenizer of its own; CLIP's by default."""
    background: str = BACKGROUND
    """Name of no event."""
    prompts: Sequence[str] = ()
    """Sentences with {} in the place of a name, whose embeddings are averaged; without any, names are used as they
    are."""
    licences: Sequence[str] = ()
    """Of each of `weights`, in a sentence. None: what their file or model card says, or ImageBind's if a checkpoint
    says nothing."""


def write_bundle(
    contents: BundleContents,
    out: str | os.PathLike[str],
    *,
    precisions: Sequence[Precision] = ("fp32",),
    fastest_of: Sequence[Precision] = (),
    overwrite: bool = False,
    progress: Progress = no_progress,
    note: Callable[[str], None] = lambda _left_out: None,
) -> Bundle:
    """Export encoders and a temporal head into the folder `out`, verify the result and return it.

    Everything is written into a hidden folder beside `out`, which is renamed at the very end and removed on any error.

    The same input in the same precisions gives the same bundle, byte for byte, on one kind of CPU with one number of
    threads (`torch.get_num_threads`). Elsewhere, what PyTorch and ONNX Runtime compute for it is the same but for
    rounding: the embeddings of the names, golden outputs, parity, and what 8-bit graphs are fitted to.

    Args:
        contents: what it is made of.
        out: folder to make.
        precisions: of the vision and audio encoders, each a file of its own; the other graphs are small or run rarely
            and stay in fp32. What an engine runs by default is the first of `ENGINE_PRECISIONS` among them. One with
            pooled sound, which is no default, brings its number format along.
        fastest_of: further precisions, of which at most one is kept: the fastest on this CPU that loses little enough;
            none if fp32 is among `precisions` and faster.
        overwrite: replace an older bundle at `out`.
        progress: called at each stage.
        note: called with a sentence on each of `fastest_of` that is left out.

    Raises:
        CheckpointError: the weights or the head are not what they should be.
        VocabularyError: a name cannot be used.
        UsageError: `out` exists, no precision is named, this CPU cannot compute one exactly, or sound should be pooled
            whose preparation does not hold its second twice.
        PrecisionError: these weights lose too much in one of `precisions`, or in all of `fastest_of`.
        ExportError: a graph misses its tolerance or loses too much in its precision, the head does not score by the
            geometric mean, or the disk is too full.
        OutputError: the bundle cannot be written.
    """
    need_libraries()
    from ovavel.training.fit.calibrate import read_calibration
    from ovavel.training.heads.base import load_head
    from ovavel.training.heads.temporal import TemporalHead
    from ovavel.training.models.source import open_model

    out, model = Path(out).absolute(), open_model(contents.weights, contents.config, contents.tokenizer)
    head = Path(contents.head) if contents.head else None
    _check_pooling(precisions, model)
    precisions = tuple(dict.fromkeys(form for each in precisions for form in (POOLED.get(each, each), each)))
    forms = tuple(each for each in dict.fromkeys(fastest_of) if each not in precisions)
    if not precisions:
        raise UsageError("name at least one precision to export in")
    check_exact((*precisions, *forms))
    check_place(out, model, (*precisions, *forms), overwrite=overwrite)
    licence = _licence(model, contents.licences)
    sizes = model.encoders.sizes
    temporal = load_head(head) if head else TemporalHead(0, sizes[1]).eval()
    if head and set(sizes) != {temporal.dim}:
        makes = " and ".join(str(size) for size in sorted(set(sizes)))
        raise UsageError(
            f"the head {head} is for embeddings of size {temporal.dim}, and the model {model.name!r} makes {makes}: "
            "they do not belong together"
        )
    if temporal.score not in ("geometric", "learned"):
        raise ExportError(
            f"the head {head} scores by {temporal.score}, an ablation that the runtime does not do; "
            "export a head with the score 'geometric', or one that has learned how to fuse"
        )
    with whole_folder(out) as aside:
        bundle = _Writer(aside, model, precisions, forms, progress, note).write(
            contents.names,
            temporal,
            head=head,
            calibration=read_calibration(head) if head else None,
            background=contents.background,
            prompts=contents.prompts,
            licence=licence,
        )
        progress("putting it in its place", 1.0)
    return dataclasses.replace(bundle, path=out)


def _licence(model: EncoderModel, stated: Sequence[str]) -> str:
    """What is `stated`, or the file of a checkpoint says, or the model card beside it: for all weights in a sentence.

    A checkpoint that says nothing is ImageBind's, or was made from it. Other weights have to say it.
    """
    from ovavel.training.models.checkpoint import read_metadata
    from ovavel.training.models.folder import stated_licence

    if len(stated) not in (0, len(model.weights)):
        raise UsageError(f"there are {len(stated)} licences for {len(model.weights)} weights: give one for each")
    if len(model.weights) == 1:
        said = read_metadata(model.weights[0]).get("licence")
        return stated[0] if stated else f"{said}, as {model.weights[0].name} says" if said else IMAGEBIND_LICENCE
    folders = [file.parent for file in model.weights]
    found = list(stated) or [stated_licence(folder) or "" for folder in folders]
    if silent := [str(folder) for folder, licence in zip(folders, found, strict=True) if not licence]:
        raise UsageError(
            f"the model card of {' and of '.join(silent)} (README.md) does not say the licence of the weights; look it "
            "up and give the licences of both with --licences, in the order vision, audio: the bundle keeps them"
        )
    return "; ".join(f"{folder.name}: {licence}" for folder, licence in zip(folders, found, strict=True))


class _Writer:
    """Fills a folder with a bundle. One encoder at a time is in memory."""

    def __init__(
        self,
        folder: Path,
        model: EncoderModel,
        precisions: Sequence[Precision],
        forms: Sequence[Precision],
        progress: Progress,
        note: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._model = model
        self._encoders = model.encoders
        self._precisions = precisions
        self._forms = list(forms)
        """Those of which one is kept that have not been left out yet."""
        self._note = note
        self._progress = progress
        self._done = 0.0
        self._checks: list[ParityCheck] = []
        self._golden = GoldenWriter(model.encoders)
        self._graphs: dict[Graph, dict[str, str]] = {}

    def write(
        self,
        names: Sequence[str],
        temporal: Head,
        *,
        head: Path | None,
        calibration: Calibration | None,
        background: str,
        prompts: Sequence[str],
        licence: str,
    ) -> Bundle:
        from ovavel.training.models.source import joined_sha256

        for file, content in self._model.tokenizers().items():
            (self._folder / file).write_bytes(content)
        specs = {sense: self._encoders.of(sense) for sense in SENSES}
        tokenizers = {sense: Tokenizer.open(self._folder / spec.tokenizer) for sense, spec in specs.items()}
        for tokenizer in tokenizers.values():
            names = check_names(names, tokenizer=tokenizer, background=background)
        names = (*names, background)
        # The background is used as it is.
        read = sentences(names[:-1], prompts, list(tokenizers.values())) if prompts else []
        text = self._export_encoders(tokenizers, names, read)
        self._keep_the_fastest()
        plain = text[: len(names)]
        named = TextEmbeddings.joined([averaged(text[len(names) :], len(prompts)), plain[-1:]]) if prompts else plain
        vocabulary = Vocabulary(names=names, embeddings=named, prompts=tuple(prompts))
        vocabulary.save(self._folder)
        self._head(temporal, vocabulary, plain, tokenizers)
        self._golden.write(self._folder)
        self._progress("hashing every file", self._done)
        versions = {library: importlib.metadata.version(library) for library in _COMPARED}
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            ovavel_version=importlib.metadata.version("ovavel"),
            model=Model(
                name=self._model.name,
                weights_sha256=joined_sha256([file_entry(file).sha256 for file in self._model.weights]),
                licence=licence,
                config=self._model.config,
                head_layers=temporal.blocks,
                head=temporal.name,
                head_sha256=file_entry(head).sha256 if head else None,
            ),
            encoders=self._encoders,
            graphs=self._graphs,
            precision={engine: _defaults(engine, self._graphs) for engine in ENGINE_PRECISIONS},
            exact_on={each: EXACT_ON.get(each, (ANY,)) for each in self._graphs["audio"]},
            files={file.name: file_entry(file) for file in sorted(self._folder.iterdir())},
            fusion=Fusion(
                audio_scale=temporal.audio_scale,
                decision=_decision(temporal.score, calibration),
            ),
            opset=OPSET,
            parity=Parity(versions=versions, checks=tuple(self._checks)),
            vocabulary=vocabulary.version,
        ).calibrated(calibration)
        (self._folder / MANIFEST).write_bytes(manifest.encode())
        held = (*self._precisions, *self._forms)
        runs = [each for each in held if each in ENGINE_PRECISIONS["onnxruntime-cpu"]]

        progress = part_of(self._progress, self._done, _SHARES["check"], prefix="bundle: comparing with PyTorch, ")
        return checked(Bundle.open(self._folder), runs, progress)

    def _export_encoders(
        self, tokenizers: Mapping[Sense, Tokenizer], names: Sequence[str], read: Sequence[str]
    ) -> TextEmbeddings:
        """Export the encoders one after the other; return the embeddings of the C `names` and the texts to `read`."""
        texts: dict[Graph, NDArray[np.float32]] = {}
        read_by = {self._encoders.of(sense).text: tokenizers[sense] for sense in SENSES}
        graphs: tuple[Graph, ...] = ("vision", "audio", *self._encoders.text_graphs)
        for graph in graphs:
            self._progress(f"{_shown(graph)}: loading the weights", self._done)
            tower = self._model.tower(graph)
            tokenizer = tokenizers["vision"]
            if graph in TEXT_GRAPHS:
                tokenizer = read_by[graph]
                texts[graph] = self._embed(tower, tokenizer, [*names, *read])
            held: tuple[Precision, ...] = ("fp32",) if graph in TEXT_GRAPHS else (*self._precisions, *self._forms)
            precisions = dict.fromkeys(each for each in held if of_graph(graph, each) == each)
            inputs = {each: encoder_inputs(graph, tokenizer, names, self._encoders, each) for each in precisions}
            self._golden.encode(graph, tower)
            self._export(graph, tower, inputs)
            del tower
            gc.collect()
        audio, vision = (texts[self._encoders.of(sense).text] for sense in SENSES)
        return TextEmbeddings(audio, vision)

    def _keep_the_fastest(self) -> None:
        """Measure the forms of which one is kept on this CPU, with fp32 where it is held, and leave out the others."""
        rivals = [*(each for each in self._precisions if each == "fp32"), *self._forms]
        if not self._forms or len(rivals) == 1:
            return
        self._progress(f"comparing the speed of {', '.join(rivals)}", self._done)
        graphs: tuple[Graph, ...] = ("vision", "audio")
        speeds = times_faster({each: [self._folder / self._graphs[g][each] for g in graphs] for each in rivals})
        kept = fastest(self._forms, speeds)
        for form in list(self._forms):
            if form != kept:
                self._leave_out(form, f"{form} is not faster here than {kept}")
            elif "fp32" in rivals and speeds[form] < speeds["fp32"]:
                self._leave_out(form, f"{form} takes {1 / speeds[form]:.2f} times as long as fp32 on this CPU")

    def _leave_out(self, form: Precision, why: str) -> None:
        """Delete what was written in `form`."""
        self._forms.remove(form)
        self._checks = [check for check in self._checks if check.precision != form]
        for files in self._graphs.values():
            if name := files.pop(form, None):
                for file in (name, f"{name}.data"):
                    (self._folder / file).unlink(missing_ok=True)
        self._note(why)

    def _embed(self, tower: nn.Module, tokenizer: Tokenizer, names: Sequence[str]) -> NDArray[np.float32]:
        tokens = tokenizer.encode(names)
        rows = []
        for start in range(0, len(tokens), _TEXT_BATCH):
            self._progress(f"text: {start} of {len(tokens)} names embedded", self._done)
            batch = {"names": (tokens[start : start + _TEXT_BATCH],)}
            _, outputs = reference("text", tower, batch).cases["names"]
            rows.append(outputs[0])
        embeddings: NDArray[np.float32] = np.concatenate(rows)
        return embeddings

    def _head(
        self,
        temporal: Head,
        vocabulary: Vocabulary,
        plain: TextEmbeddings,
        tokenizers: Mapping[Sense, Tokenizer],
    ) -> None:
        from ovavel.training.heads.temporal import HeadGraph

        head, named = HeadGraph(temporal).eval(), vocabulary.embeddings if vocabulary.prompts else None
        tokens = {sense: tokenizer.encode(vocabulary.names) for sense, tokenizer in tokenizers.items()}
        self._golden.decide(head, vocabulary.names, tokens, plain, named)
        self._export("head", head, {"fp32": head_inputs(plain)})

    def _export(
        self,
        graph: Graph,
        module: nn.Module,
        inputs: Mapping[Precision, Mapping[str, tuple[NDArray[Any], ...]]],
    ) -> None:
        """Write `graph` in each precision of `inputs`, and compare it on those inputs."""
        start, share = self._done, _SHARES[graph]
        expected: dict[tuple[str, ...], Reference] = {}  # by the names of its inputs
        pooled = [each for each in inputs if each in POOLED]
        files = self._write_forms(
            graph, module, [each for each in inputs if each not in pooled], share / 2 / len(inputs)
        )
        if pooled:
            from ovavel.training.models.imagebind.pooled import PooledTower

            fewer, cases = PooledTower(cast("PatchTower", module)).eval(), inputs[pooled[0]]
            self._progress("audio: comparing pooled tokens with all", self._done)
            expected[tuple(cases)] = reference(graph, module, cases)
            self._checks.append(check_pooled(fewer, expected[tuple(cases)], pooled[0]))
            files |= self._write_forms(graph, fewer, pooled, share / 2 / len(inputs))
        for precision, cases in inputs.items():
            self._progress(f"{_shown(graph)}: comparing {precision} with PyTorch", self._done)
            if tuple(cases) not in expected:
                expected[tuple(cases)] = reference(graph, module, cases)
            try:
                self._checks.append(check_graph(files[precision], expected[tuple(cases)], precision))
            except PrecisionError as error:
                if precision not in self._forms or self._forms == [precision]:
                    raise
                self._graphs[graph] = {each: file.name for each, file in files.items()}
                self._leave_out(precision, error.loss)
                del files[precision]
            self._done += share / 2 / len(inputs)
        self._graphs[graph] = {precision: file.name for precision, file in files.items()}
        self._done = start + share

    def _write_forms(
        self, graph: Graph, module: nn.Module, precisions: Sequence[Precision], share: float
    ) -> dict[Precision, Path]:
        """Write `module` as `graph` in each of `precisions`, each a `share` of the time; return the files."""
        self._progress(f"{_shown(graph)}: expressing it in ONNX", self._done)
        model = traced(graph, module, encoders=self._encoders)
        seen: Sequence[Activation] = ()
        if (graph == "vision" or graph == "audio") and FITTED.intersection(precisions):
            self._progress(f"{_shown(graph)}: observing activations", self._done)
            seen = observe_activations(module, calibration_inputs(graph, self._encoders))
        files = {}
        for precision in precisions:
            self._progress(f"{_shown(graph)}: writing {precision}", self._done)
            files[precision], *_ = save_variant(model, graph, self._folder, precision, seen)
            self._done += share
        del model  # it holds weights of its own, and so does ONNX Runtime
        gc.collect()
        return files


def _check_pooling(precisions: Sequence[Precision], model: EncoderModel) -> None:
    """Refuse to pool sound where the preparation does not hold its second twice."""
    pooled = [each for each in precisions if each in POOLED]
    if pooled and model.encoders.audio.preprocessing != "kaldi-log-mel":
        raise UsageError(
            f"{pooled[0]} pools what ImageBind's input of sound holds twice, and the input of {model.name} holds "
            f"nothing twice: export with --precision {POOLED[pooled[0]]}"
        )


def _decision(score: ScoreKind, calibration: Calibration | None) -> FusionKind:
    """The fusion that a head's calibration was made for; without one, what the kind of its score suggests."""
    if calibration is None:
        return "learned" if score == "learned" else "positive"
    for known in get_args(FusionKind):
        if calibration.fusion == known:
            fusion: FusionKind = known
            return fusion
    raise ExportError(
        f"the head was calibrated for the decision rule {calibration.fusion}, which a head does not hold; calibrate "
        "it again, or calibrate the bundle: `ovavel eval calibrate --rule … --write`"
    )


def _shown(graph: Graph) -> str:
    """The name of a graph in words."""
    return graph.replace("_", " ")


def need_libraries() -> None:
    """Name what is missing before minutes of work, not after."""
    for library, extra in (("torch", "export"), ("onnx", "export"), ("onnxscript", "export"), ("onnxruntime", "cpu")):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise MissingExtraError(library, extra, need="Exporting a bundle") from error


def _defaults(engine: str, graphs: Mapping[Graph, Mapping[str, str]]) -> dict[Graph, str]:
    """Return graph → the precision `engine` runs, for the graphs that it runs in one of theirs."""
    choices = {graph: preferred(engine, files) for graph, files in graphs.items()}
    return {graph: choice for graph, choice in choices.items() if choice}
