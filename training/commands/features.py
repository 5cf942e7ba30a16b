"""`ovavel train features`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from ovavel.eval.commands.options import DatasetOptions
from ovavel.runtime.commands.options import DeviceOptions, Many, Maybe, Workers, backend_help, check_bundle_backends
from ovavel.runtime.errors import MissingExtraError, UsageError
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.system.bounds import Meta
from ovavel.runtime.types import BUFFER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from ovavel.eval.datasets.dataset import Dataset
    from ovavel.eval.datasets.feature_cache import Damage
    from ovavel.training.features.encoders import Encoders
    from ovavel.training.features.extract import Extraction

__all__ = ["Features"]

_SHOWN = 10  # damaged clips that are reported one by one
_GPU_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Features:
    """Encode every clip of a dataset once, into a cache for training and evaluating heads.

    Examples:
        ovavel train features --data OV-AVEBench --weights imagebind_huge.pth --precision bf16 --out features
        ovavel train features --data OV-AVEBench --weights clip-vit-base-patch32 larger_clap_general --out features
        ovavel train features --data OV-AVEBench --bundle imagebind --out features
        ovavel train features --data OV-AVEBench --weights imagebind_huge.pth --passes 5 --out features-drop-path
        ovavel train features --data OV-AVEBench --dry-run

    The cache is a folder in --out, named by a fingerprint of everything the embeddings depend on: weights or graphs,
    tokenizer, backend, kind of device, precision, preprocessing, annotations. If one of them changes, a separate cache
    is made. You can stop the command at any time, even with kill -9, and run it again: it resumes with the first
    incomplete shard. With the same --batch and --threads, a CPU writes the same files bit for bit.

    A clip that cannot be read is skipped: the cache records the reason, and every table counts it. Repair its files
    and run the command again: the shards of changed clips are rebuilt. All of OV-AVEBench takes 2.1 GB.

    --passes encodes the sound of the training clips further times, each time with other residual branches of the audio
    encoder left out (stochastic depth), as in the published script's training; the recipe paper-drop-path trains on
    them. A cache with passes is a cache of its own, which has the clean embeddings too. A pass over OV-AVEBench takes
    0.5 GB.
    """

    dataset: DatasetOptions
    """What to encode."""
    out: Maybe[Path] = None
    """Folder for caches; created if missing."""
    weights: Many[Path] = ()
    """ImageBind checkpoint (imagebind_huge.pth, or safetensors with the same names), or the folders of CLIP and CLAP,
    to run in PyTorch."""
    config: str = "huge"
    """Size of ImageBind: huge (the published one), tiny (for tests), or a JSON file: a bundle's manifest, or the fields
    of its model.config."""
    tokenizer: Maybe[Path] = None
    """The tokenizer.json of --weights, for an ImageBind with a tokenizer of its own; CLIP's by default."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision in which PyTorch computes vision and audio (autocast); a CPU supports fp32 and bf16. Names are always
    encoded in fp32, and embeddings are stored in fp32."""
    bundle: Maybe[Path] = None
    """Bundle to encode with, instead of --weights; it runs in the precision it was exported in."""
    backend: Annotated[str, arg(help=backend_help("What runs the graphs of --bundle"))] = "onnxruntime"
    place: DeviceOptions = field(default_factory=DeviceOptions)
    """Where the encoders run. A small model is faster if some cores are left for --workers."""
    passes: Annotated[int, Meta(ge=0, le=100)] = 0
    """Further passes of the training clips' sound with stochastic depth; for ImageBind's --weights. Only they are
    noisy: vision, texts, validation and test stay clean."""
    drop_path: Maybe[Annotated[float, Meta(gt=0, lt=1)]] = None
    """Rate of --passes: how often the last block of the audio encoder leaves out a branch; it grows linearly from 0 in
    the first. Default: 0.1, as published."""
    splits: tuple[str, ...] = ("train", "val", "test")
    """Which splits; others can be added to the cache later."""
    batch: Maybe[Annotated[int, Meta(ge=1, le=4_096)]] = None
    """Clips (of ten segments) encoded at once; 16 on a GPU and 1 on a CPU by default."""
    workers: Workers = None
    """Processes that decode; by default one per core, or half as many if the encoders share the CPU with them."""
    shard_clips: Annotated[int, Meta(ge=1, le=1_000_000)] = 256
    """Clips per file of the cache, and so the most that an interruption can cost. It is part of the fingerprint."""
    dry_run: bool = False
    """Only decode and prepare, report damaged clips and the segments per second, and write nothing."""

    def run(self) -> int:
        """Fill the cache, or measure decoding."""
        from rich.console import Console

        from ovavel.runtime.system.interrupt import terminated_as_interrupted

        splits = tuple(dict.fromkeys(self.splits))
        self._check()
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        with terminated_as_interrupted():
            with console.status("reading the annotations"):
                bench = self.dataset.open()
            return self._measure(bench, splits, console) if self.dry_run else self._extract(bench, splits, console)

    def _check(self) -> None:
        if not self.dry_run:
            if (not self.weights) == (self.bundle is None):
                raise UsageError("what should encode? Give either --weights or --bundle (or --dry-run)")
            if self.out is None:
                raise UsageError("where should the cache go? Give --out")
        if self.bundle:
            check_bundle_backends(self.backend)
        if self.bundle and (self.tokenizer or self.precision != "fp32" or self.config != "huge"):
            raise UsageError("--config, --tokenizer and --precision are for --weights; a bundle has its own")
        if self.bundle and self.passes:
            raise UsageError("--passes needs the encoder in PyTorch: give --weights; a bundle has no stochastic depth")
        if self.drop_path is not None and not self.passes:
            raise UsageError("--drop-path is the rate of --passes: give their number as well")

    def _measure(self, bench: Dataset, splits: tuple[str, ...], console: Console) -> int:
        from ovavel.runtime.system.bars import rated_bar
        from ovavel.runtime.system.hardware import physical_cores
        from ovavel.training.features.decode import decode_only, select_clips

        clips = select_clips(bench, splits)
        workers = self.workers if self.workers is not None else physical_cores()
        with rated_bar("clips", console=console) as progress:
            result = decode_only(bench, clips, workers=workers, progress=progress)
        print(
            f"decoding and preparing: {result.segments_per_s:.0f} segments/s with {workers} "
            f"{'process' if workers == 1 else 'processes'}, over {result.clips} clips"
        )
        _print_damaged(result.damaged, result.clips)
        return 0

    def _extract(self, bench: Dataset, splits: tuple[str, ...], console: Console) -> int:
        from ovavel.runtime.system.bars import rated_bar
        from ovavel.runtime.system.hardware import physical_cores

        assert self.out
        try:
            from ovavel.training.features.extract import extract
        except ImportError as error:
            raise MissingExtraError(error.name or "torch", "train", need="Encoding clips") from error
        encoders = self._encoders(console)
        on_cpu = encoders.device == "cpu"
        cores = physical_cores()
        try:
            with rated_bar("clips", console=console) as progress:
                extraction = extract(
                    bench,
                    encoders,
                    self.out,
                    splits=splits,
                    batch=self.batch if self.batch is not None else 1 if on_cpu else _GPU_BATCH,
                    workers=self.workers if self.workers is not None else max(1, cores // 2) if on_cpu else cores,
                    shard_clips=self.shard_clips,
                    progress=progress,
                )
        finally:
            encoders.close()
        _print(extraction, splits)
        return 0

    def _encoders(self, console: Console) -> Encoders:
        from ovavel.eval.datasets.audio_passes import AudioPasses
        from ovavel.runtime.system.bars import shown_status
        from ovavel.training.features.encoders import bundle_encoders, checkpoint_encoders
        from ovavel.training.models.imagebind.model import read_config
        from ovavel.training.models.imagebind.stochastic_depth import AUDIO_RATE

        if self.bundle:
            with console.status("opening the bundle"):
                return bundle_encoders(
                    self.bundle, backend=self.backend, device=self.place.device, threads=self.place.threads
                )
        assert self.weights
        rate = AUDIO_RATE if self.drop_path is None else self.drop_path
        with shown_status("loading the weights") as progress:
            return checkpoint_encoders(
                self.weights,
                read_config(self.config),
                device=self.place.device,
                threads=self.place.threads,
                precision=self.precision,
                tokenizer=self.tokenizer,
                passes=AudioPasses(count=self.passes, drop_path=rate) if self.passes else None,
                progress=progress,
            )


def _print(extraction: Extraction, splits: tuple[str, ...]) -> None:
    from ovavel.runtime.reporting.text import names_text

    cache = extraction.cache
    damaged = {key: damage for key, damage in cache.damaged.items() if key[0] in splits}
    rate = f", {extraction.encoded * BUFFER / extraction.seconds:.1f} segments/s" if extraction.encoded else ""
    print(f"{extraction.encoded} clips encoded now{rate}; {extraction.kept} were already in the cache")
    if extraction.renewed:
        print(f"{extraction.renewed} files of the cache were rebuilt because clips have changed")
    _print_damaged(damaged, sum(cache.info.clips[split] for split in splits))
    info = cache.info
    print(
        f"{cache.path}: {info.model} in {info.precision} by {info.backend} on {info.device}, {', '.join(splits)}, "
        f"{names_text(len(cache.names))}"
    )
    if info.passes:
        print(f"training clips have {info.passes} in the audio encoder")


def _print_damaged(damaged: Mapping[tuple[str, str], Damage], clips: int) -> None:
    print(f"{clips - len(damaged)} of {clips} clips could be read; {len(damaged)} damaged")
    for kind, count in Counter(damage.kind for damage in damaged.values()).most_common():
        print(f"  {count} × {kind}")
    for (split, name), damage in list(damaged.items())[:_SHOWN]:
        print(f"  {one_line(f'{split}/{name}: {damage.message}')}")
    if len(damaged) > _SHOWN:
        print(f"  … and {len(damaged) - _SHOWN} more")
