"""`ovavel bundle weights` and `ovavel bundle export`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovavel.export.published import DEFAULT_URL
from ovavel.runtime.bundle.precision import Precision
from ovavel.runtime.commands.options import Many, Maybe
from ovavel.runtime.errors import InputError, OutputError, PrecisionError

__all__ = ["Export", "Weights"]

_FASTEST_ON_CPUS: Precision = "int8"
_FASTEST_ON_GPUS: Precision = "fp16"
_INSTEAD: Mapping[str, Precision | None] = {"int8": "int16", "int16": None, "fp16": "bf16", "bf16": None}
"""Precision in which the weights lose too much → the one exported instead: the next in speed, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Download ImageBind's published weights (4.8 GB).

    Example:
        ovavel bundle weights --accept-license --out weights

    An interrupted download resumes where it stopped. The weights are under CC BY-NC-SA 4.0: no commercial use.
    """

    out: Path
    """Folder for the weights."""
    accept_license: bool = False
    """Accept the licence of the weights; without it, the licence is shown and nothing is downloaded."""
    url: str = DEFAULT_URL
    """Where to download the weights from, for example a mirror."""

    def run(self) -> int:
        """Download the weights."""
        from ovavel.export.weights import download_weights

        download_weights(self.out, accept_license=self.accept_license, url=self.url)
        return 0


@dataclass(frozen=True, kw_only=True)
class Export:
    """Export encoders, a temporal head and a vocabulary into one folder that runs without PyTorch.

    Examples:
        ovavel bundle export --weights weights/imagebind_huge.pth --vocabulary names.txt --out imagebind
        ovavel bundle export --weights ... --vocabulary names.txt --out imagebind --precision fp32 int8 fp16
        ovavel bundle export --weights clip-vit-base-patch32 larger_clap_general --vocabulary names.txt --out clip-clap

    The encoders are ImageBind, from its checkpoint, or CLIP and LAION-CLAP, from two folders as transformers writes
    them: config.json, model.safetensors, tokenizer.json. config.json says which is which.

    names.txt holds one name per line, used unchanged, for instance "dog barking"; OV-AVEBench's class file is an
    example. Blank lines and lines that start with # are skipped. The background, "other", is added as the last name.
    Every graph is compared with PyTorch before the folder appears. The full size takes about ten minutes, 6 GB of disk
    and 8 GB of memory.

    --precision lists the number formats of vision and audio, each stored in its own file: int8 and int16 are for CPUs,
    fp16 and bf16 for GPUs. 'ovavel live' and the other commands run the fastest one that their engine supports. A
    precision that loses too much is not written: the minimum cosine with PyTorch's embeddings is 0.999999 in fp32 and
    int16, 0.999 in fp16 and bf16, 0.99 in 8 bits.

    int8 and int16 are exact on CPUs with 8-bit dot products (avx512_vnni, avx_vnni, amx_int8, asimddp, i8mm); other
    CPUs would saturate their sums. int8-any and int16-any are correct on every CPU. With --cpu this, int8 and int16
    stand for the form that this machine computes exactly; with --cpu any, for the form that every machine does.

    int8-pooled is int8 with half of the tokens of sound: ImageBind's input holds each second twice, and what is held
    twice is computed once. It is exported beside int8, it must keep 0.998 before rounding, on sounds prepared as a
    microphone's are, and it runs only where --precision asks for it. fp32-pooled and int8-any-pooled are likewise.

    Without --precision you get fp32 and the fastest CPU precision that these weights allow, as measured on this
    machine: a form of int8, else of int16, unless fp32 is faster; on a machine with an NVIDIA GPU also the fastest one
    for it: fp16, else bf16.
    """

    weights: tuple[Path, ...]
    """ImageBind checkpoint: imagebind_huge.pth, or safetensors with the same names; or the folders of CLIP and CLAP."""
    vocabulary: Path
    """Text file with one class name per line."""
    out: Path
    """Folder to create."""
    head: Maybe[Path] = None
    """Checkpoint of a temporal head; without one, the bundle decides without fine-tuning."""
    prompts: Many[str] = ()
    """Sentences with {} in the place of a name, such as "a photo of {}": the average of their embeddings stands for
    each name; the background is used as it is. Without any, names are used as they are."""
    config: str = "huge"
    """Size of ImageBind: huge (the published one), tiny (for tests), or a JSON file: a bundle's manifest, or the fields
    of its model.config."""
    licences: Many[str] = ()
    """Licence of each of --weights, CLIP's first; by default what their files or model cards (README.md) say."""
    tokenizer: Maybe[Path] = None
    """The tokenizer.json of an ImageBind that has its own tokenizer; CLIP's by default."""
    precision: Many[Precision] = ()
    """Precisions of the vision and audio encoders, one or several; by default fp32 and the fastest for this machine."""
    cpu: Literal["this", "any"] = "this"
    """Which CPUs the 8- and 16-bit integers are for: this machine's kind, or any, for a bundle to be distributed."""
    overwrite: bool = False
    """Replace an existing bundle at --out."""

    def run(self) -> int:
        """Write the bundle."""
        from ovavel.runtime.system.interrupt import terminated_as_interrupted

        with terminated_as_interrupted():
            return self._export()

    def _forms(self, precision: Precision) -> tuple[Precision, ...]:
        """The forms of `precision` that are exact on the CPUs the bundle is for, the closest to PyTorch first."""
        from ovavel.runtime.bundle.precision import exact_forms
        from ovavel.runtime.system.hardware import cpu_features

        return exact_forms(precision, () if self.cpu == "any" else cpu_features())

    def _export(self) -> int:
        from rich.console import Console

        from ovavel.export.bundle import BundleContents, need_libraries, write_bundle
        from ovavel.runtime.pipeline.texts import read_names
        from ovavel.runtime.reporting.text import names_text, one_line, shown_name
        from ovavel.runtime.system.bars import shown_progress
        from ovavel.runtime.verification.first_use import accept

        need_libraries()
        from ovavel.training.models.imagebind.model import read_config

        names = read_names(self.vocabulary)
        config = read_config(self.config)
        console = Console(stderr=True, highlight=False)
        gpu: Precision | None = None if self.precision else _fastest_on_gpu()
        family: Precision | None = None if self.precision else _FASTEST_ON_CPUS
        while True:
            precisions = tuple(self._forms(each)[0] for each in self.precision) or ("fp32", *([gpu] if gpu else []))
            try:
                with shown_progress() as progress:
                    bundle = write_bundle(
                        BundleContents(
                            self.weights,
                            names,
                            head=self.head,
                            config=config,
                            tokenizer=self.tokenizer,
                            prompts=self.prompts,
                            licences=self.licences,
                        ),
                        self.out,
                        precisions=precisions,
                        fastest_of=self._forms(family) if family else (),
                        overwrite=self.overwrite,
                        progress=progress,
                        note=lambda left_out: console.print(f"Left out: {left_out}", markup=False, soft_wrap=True),
                    )
                break
            except PrecisionError as error:
                lossy = error.precision.removesuffix("-any")
                if self.precision or lossy not in _INSTEAD:
                    raise
                instead = _INSTEAD[lossy]
                if lossy == family:
                    family = instead
                else:
                    gpu = instead
                then = f"with {instead}" if instead else "without it"
                console.print(one_line(f"{error.loss}. Trying again {then}"), markup=False, soft_wrap=True)
        with contextlib.suppress(OutputError, InputError):  # then its users are asked whether it may have changed
            accept(bundle)
        for check in bundle.manifest.parity.checks:
            near = f"at most {check.max_abs_difference:.1e} from PyTorch"
            if check.min_cosine is not None and check.required_cosine is not None:
                near = f"a cosine of at least {math.floor(check.min_cosine * 1e5) / 1e5:.5f} with PyTorch"
            print(f"{check.graph} in {check.precision}: {near} over {check.cases} inputs ({check.method})")
        print(
            f"{shown_name(str(bundle.path))}: {names_text(len(bundle.vocabulary))}, version {bundle.vocabulary.version}"
        )
        print(one_line(bundle.manifest.model.licence))
        return 0


def _fastest_on_gpu() -> Precision | None:
    """The fastest precision for the GPU, if there is one."""
    from ovavel.eval.bench.machine import describe_machine

    return _FASTEST_ON_GPUS if describe_machine().gpus else None
