"""`ovavel train features`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from ovavel.eval.commands.options import DatasetOptions
from ovavel.runtime.commands.options import DeviceOptions, Many, Maybe, Workers, backend_help, check_bundle_backends
from ovavel.runtime.commands.scaled import ScaleOptions
from ovavel.runtime.errors import MissingExtraError, UsageError
from ovavel.runtime.system.bounds import Meta
from ovavel.training.commands.features_report import print_damaged, print_extraction

if TYPE_CHECKING:
    from rich.console import Console

    from ovavel.eval.datasets.dataset import Dataset
    from ovavel.training.features.encoders import EncoderSource

__all__ = ["Features"]


@dataclass(frozen=True, kw_only=True)
class Features:
    """Encode every clip of a dataset once, into a cache for training and evaluating heads.

    Examples:
        ovavel train features --data OV-AVEBench --weights imagebind_huge.pth --precision bf16 --out features
        ovavel train features --data OV-AVEBench --weights clip-vit-base-patch32 larger_clap_general --out features
        ovavel train features --data OV-AVEBench --bundle imagebind --out features
        ovavel train features --data OV-AVEBench --weights imagebind_huge.pth --passes 5 --out features-drop-path
        ovavel train features --data OV-AVEBench --bundle imagebind --out features --shard 3/8 --threads 4
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
    scale: ScaleOptions = field(default_factory=ScaleOptions)
    """Several processes or machines fill one cache, shard by shard; see docs/scale.md."""
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
                # Absolute, since the cache quotes paths of damaged clips: wherever it is made, it is the same.
                bench = replace(self.dataset, data=self.dataset.data.absolute()).open()
            if self.scale.given:
                return self._scale(bench, splits, console)
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
        if self.dry_run and self.scale.given:
            raise UsageError("--dry-run is for one process: leave --shard and --on out")
        self.scale.check(files=(), out=self.out, device=self.place.device)

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
        print_damaged(result.damaged, result.clips)
        return 0

    def _extract(self, bench: Dataset, splits: tuple[str, ...], console: Console) -> int:
        from ovavel.runtime.system.bars import rated_bar, shown_status
        from ovavel.runtime.system.hardware import physical_cores

        assert self.out
        source = self._source()
        from ovavel.training.features.batches import default_batch
        from ovavel.training.features.extract import extract

        if source.bundle:
            with console.status("opening the bundle"):
                encoders = source.open()
        else:
            with shown_status("loading the weights") as progress:
                encoders = source.open(progress)
        on_cpu = encoders.device == "cpu"
        cores = physical_cores()
        try:
            with rated_bar("clips", console=console) as progress:
                extraction = extract(
                    bench,
                    encoders,
                    self.out,
                    splits=splits,
                    batch=self.batch or default_batch(encoders),
                    workers=self.workers if self.workers is not None else max(1, cores // 2) if on_cpu else cores,
                    shard_clips=self.shard_clips,
                    progress=progress,
                )
        finally:
            encoders.close()
        print_extraction(extraction, splits, sum(extraction.cache.info.clips[split] for split in splits))
        return 0

    def _scale(self, bench: Dataset, splits: tuple[str, ...], console: Console) -> int:
        assert self.out
        source = self._source()
        from ovavel.training.commands.features_scaled import run_scaled
        from ovavel.training.features.scaled import FeatureJob

        job = FeatureJob(
            bench=bench,
            out=str(self.out.absolute()),
            source=source.absolute(),
            batch=self.batch,
            workers=self.workers,
            shard_clips=self.shard_clips,
        )
        return run_scaled(job, splits, self.scale, console)

    def _source(self) -> EncoderSource:
        from ovavel.eval.datasets.audio_passes import AudioPasses

        try:
            from ovavel.training.features.encoders import EncoderSource
            from ovavel.training.models.imagebind.model import read_config
            from ovavel.training.models.imagebind.stochastic_depth import AUDIO_RATE
        except ImportError as error:
            raise MissingExtraError(error.name or "torch", "train", need="Encoding clips") from error
        rate = AUDIO_RATE if self.drop_path is None else self.drop_path
        return EncoderSource(
            bundle=self.bundle,
            backend=self.backend,
            weights=tuple(self.weights),
            config=read_config(self.config),
            precision=self.precision,
            tokenizer=self.tokenizer,
            passes=AudioPasses(count=self.passes, drop_path=rate) if self.passes else None,
            device=self.place.device,
            threads=self.place.threads,
        )
