"""`ovavel bundle triton`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ovavel.runtime.bundle.graphs import DECIDING, Graph
from ovavel.runtime.commands.options import Maybe
from ovavel.runtime.system.bounds import Meta

__all__ = ["Triton"]


@dataclass(frozen=True, kw_only=True)
class Triton:
    """Write a bundle's graphs as a model repository for Triton, NVIDIA's inference server.

    Examples:
        ovavel bundle triton --bundle imagebind --out repository --precision fp16
        ovavel bundle triton --bundle imagebind --out repository --processor cpu

    Run the server with this folder, then verify it from each machine that is to use it, and use it:

        ovavel bundle check --bundle imagebind --backend triton --device grpc://HOST:8001
        ovavel live --bundle imagebind --backend triton --device grpc://HOST:8001

    The folder has a model for each graph, with its weights and a config.pbtxt, and appears when it is complete. The
    bundle itself remains necessary: it has the vocabulary, and what the server is verified with.
    """

    bundle: Path
    """Folder written by 'ovavel bundle export'."""
    out: Path
    """Folder to create: the server's --model-repository."""
    precision: Maybe[str] = None
    """Precision of vision and audio, if the bundle has it; by default the bundle's choice for CUDA, or fp32 with
    --processor cpu."""
    processor: Literal["gpu", "cpu"] = "gpu"
    """What the server runs the encoders on."""
    max_batch: Annotated[int, Meta(ge=1, le=4_096)] = 16
    """Windows that are encoded at once, at most; those of several cameras count together."""
    instances: Annotated[int, Meta(ge=1, le=64)] = 1
    """Copies of each encoder, on each GPU: each has weights of its own, and they run side by side."""
    graphs: tuple[Graph, ...] = DECIDING
    """Which graphs to write; ovavel itself asks a server only for these three."""
    overwrite: bool = False
    """Replace an existing repository at --out."""

    def run(self) -> int:
        """Write the repository and print where each model is."""
        from ovavel.runtime.backends.triton.models import ModelSettings, repository_precision
        from ovavel.runtime.backends.triton.repository import check_place, write_repository
        from ovavel.runtime.bundle.bundle import Bundle
        from ovavel.runtime.reporting.text import one_line
        from ovavel.runtime.system.bars import shown_progress
        from ovavel.runtime.system.interrupt import terminated_as_interrupted

        check_place(self.out, overwrite=self.overwrite)
        bundle = Bundle.open(self.bundle)
        graphs = dict.fromkeys(self.graphs)
        precision = {each: repository_precision(bundle, each, self.processor, self.precision) for each in graphs}
        settings = ModelSettings(processor=self.processor, max_batch=self.max_batch, instances=self.instances)
        with terminated_as_interrupted(), shown_progress() as progress:
            write_repository(bundle, self.out, precision, settings, progress=progress)
        for graph, each in precision.items():
            print(one_line(f"{graph} in {each}: {self.out / graph}"))
        print(one_line(bundle.manifest.model.licence))
        return 0
