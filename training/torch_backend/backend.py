"""The original weights in PyTorch. Eager in fp32, it is the reference for the exported graphs.

For speed comparisons it also runs compiled, as CUDA graphs and in lower precisions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.backends.graph_backend import GraphBackend
from ovavel.runtime.bundle.graphs import Encoders, Graph
from ovavel.runtime.errors import BundleError, DeviceError, UsageError
from ovavel.training.heads.base import Head, load_head
from ovavel.training.heads.temporal import HeadGraph, TemporalHead
from ovavel.training.models.imagebind.model import ImageBindConfig
from ovavel.training.models.source import AnyPaths, Model, as_paths, open_model
from ovavel.training.models.unit import unit_norm
from ovavel.training.torch_backend.modes import Cast, Mode, in_mode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["Precision", "TorchBackend", "open_torch", "open_weights", "resolve_device"]

# B batch, T segments, D embedding size, C classes with the background last

Precision = Literal["fp32", "bf16", "fp16"]
_AUTOCAST: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}

_PROVIDERS: Mapping[Mode, str] = {
    "eager": "PyTorch eager",
    "compile": "PyTorch compiled",
    "graph": "PyTorch CUDA graphs",
}
_MAX_MESSAGE = 300


def open_torch(
    bundle: Bundle,
    *,
    device: str = "auto",
    threads: int | None = None,
    graphs: Collection[Graph] = ("vision", "audio", "head"),
    precision: str | None = None,
    weights: AnyPaths | None = None,
    head: str | Path | None = None,
    config: ImageBindConfig | None = None,
    mode: Mode = "eager",
    cast_weights: bool = False,
) -> TorchBackend:
    """Load the checkpoints that a bundle was exported from.

    Many parameters: those that every backend is opened with, and PyTorch's own.

    Args:
        bundle: defines the size of the encoders and of the head.
        device: "cpu", "cuda", "cuda:N" or "auto": a GPU if there is one.
        threads: CPU threads, for all of PyTorch in this process; None leaves the number unchanged.
        graphs: the graphs to load.
        precision: precision of vision and audio: "fp32", the default, or "bf16" or "fp16" by PyTorch's autocast.
        weights: ImageBind checkpoint, or the folders of CLIP and of CLAP; required unless `graphs` is only the head.
        head: checkpoint of the temporal head; None: the training-free head.
        config: size of ImageBind; None: the bundle's.
        mode: how vision and audio run. "compile" and "graph" are slow on the first input of each batch size.
        cast_weights: store the weights of vision and audio in `precision` and compute in it, instead of autocast.

    Raises:
        UsageError: a required checkpoint is not given or of another model, or the device does not support the
            precision.
        DeviceError: the device is unavailable or does not support this mode.
        BundleError: the bundle does not state the size of its encoders.
        CheckpointError: invalid checkpoint.
    """
    chosen = _prepare_device(device, threads)
    reduced = _check_precision(precision or "fp32", chosen)
    if mode not in get_args(Mode):
        raise UsageError(f"the modes of PyTorch are {', '.join(get_args(Mode))}, not {mode!r}")
    if mode == "graph" and chosen.type != "cuda":
        raise DeviceError("CUDA graphs need a GPU; on the CPU use eager or compile")
    if cast_weights and reduced == "fp32":
        raise UsageError("the weights are already fp32; choose bf16 or fp16 to cast them")
    modules: dict[Graph, nn.Module] = {}
    encoders = config.encoders if config else bundle.manifest.encoders
    every: tuple[Graph, ...] = ("vision", "audio", *encoders.text_graphs)
    towers = [graph for graph in every if graph in graphs]
    if towers:
        if not weights:
            raise UsageError(
                "the backend torch needs the weights that the bundle was exported from: give --weights "
                "(in Python: `weights`)"
            )
        several = len(as_paths(weights)) > 1
        model = open_model(weights, None if several else config or _config(bundle))
        if several and model.encoders != encoders:
            raise UsageError(
                f"the weights are of {model.name}, and the bundle {bundle.path} was exported from others "
                f"({bundle.manifest.model.name}): give those as --weights"
            )
        modules.update({graph: model.tower(graph) for graph in towers})
    if "head" in graphs:
        modules["head"] = HeadGraph(_head(bundle, head, encoders.vision.embedding_size))
    reducible = [graph for graph in modules if graph in ("vision", "audio")]
    for graph in reducible if cast_weights else ():
        modules[graph] = Cast(modules[graph], _AUTOCAST[reduced])
    _move(modules.values(), chosen)
    for graph in reducible:
        modules[graph] = in_mode(modules[graph], mode)
    return TorchBackend(
        modules,
        chosen,
        encoders=encoders,
        classes=len(bundle.vocabulary.names),
        precision=dict.fromkeys(reducible, reduced),
        mode=mode,
        cast_weights=cast_weights,
    )


def open_weights(
    model: Model,
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
) -> TorchBackend:
    """Load the vision, audio and text encoders of a model, without a bundle or a head.

    Args:
        model: where they lie, as `open_model` returns it.
        device: "cpu", "cuda", "cuda:N" or "auto": a GPU if there is one.
        threads: CPU threads, for all of PyTorch in this process; None leaves the number unchanged.
        precision: precision of vision and audio; text stays in fp32. "bf16" and "fp16" use PyTorch's autocast: the
            weights and the outputs are float32.

    Raises:
        UsageError: unknown precision, or one that the device does not support.
        DeviceError: the device is unavailable or has too little memory.
        CheckpointError: invalid checkpoint.
    """
    chosen = _prepare_device(device, threads)
    precision = _check_precision(precision, chosen)
    graphs: tuple[Graph, ...] = ("vision", "audio", *model.encoders.text_graphs)
    modules: dict[Graph, nn.Module] = {graph: model.tower(graph) for graph in graphs}
    _move(modules.values(), chosen)
    return TorchBackend(
        modules,
        chosen,
        encoders=model.encoders,
        precision={"vision": precision, "audio": precision},
    )


def _check_precision(precision: str, device: torch.device) -> Precision:
    if precision not in get_args(Precision):
        raise UsageError(
            f"the precisions of PyTorch are {', '.join(get_args(Precision))}, not {precision!r}; choose one of these"
        )
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("fp16 needs a GPU; on the CPU use fp32 or bf16")
    return cast("Precision", precision)


def _prepare_device(device: str, threads: int | None) -> torch.device:
    """Resolve the device and set PyTorch up for it."""
    chosen = resolve_device(device)
    if threads is not None:
        if threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        torch.set_num_threads(threads)
    if chosen.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # PyTorch's default for convolutions, with errors of 1e-3
    return chosen


def _move(modules: Iterable[nn.Module], device: torch.device) -> None:
    try:
        for module in modules:
            module.to(device).eval().requires_grad_(requires_grad=False)
    except torch.OutOfMemoryError as error:
        raise DeviceError(f"{device} has too little free memory for the weights; use the device cpu") from error


class TorchBackend(GraphBackend):
    """PyTorch, eager and in fp32 by default. See `ovavel.runtime.backends.Backend`."""

    def __init__(
        self,
        modules: Mapping[Graph, nn.Module],
        device: torch.device,
        *,
        encoders: Encoders,
        classes: int = 2,
        precision: Mapping[Graph, Precision] | None = None,
        mode: Mode = "eager",
        cast_weights: bool = False,
    ) -> None:
        self._modules = dict(modules)
        self._device = device
        self._mode = mode
        self._autocast = not cast_weights
        versions = {"torch": str(torch.__version__)}
        if device.type == "cuda":
            versions["cuda"] = str(torch.version.cuda)
        info = BackendInfo(
            name="torch",
            engine="torch",
            device=str(device),
            provider=_PROVIDERS[mode]
            + (", cast weights" if cast_weights else "")
            + (f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""),
            precision=dict.fromkeys(modules, "fp32") | dict(precision or {}),
            threads=torch.get_num_threads(),
            versions=versions,
        )
        super().__init__(info, encoders=encoders, classes=classes)

    def module(self, graph: Graph) -> nn.Module:
        """Return what computes a graph that was loaded."""
        return self._modules[graph]

    def close(self) -> None:
        """Free the memory."""
        super().close()
        self._modules.clear()

    def _compute(self, graph: Graph, *arrays: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        reduced = _AUTOCAST.get(self._info.precision[graph])
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self._device.type, reduced, enabled=self._autocast and reduced is not None),
            ):
                output = self._modules[graph](*(torch.tensor(array, device=self._device) for array in arrays))
                tensors: tuple[Tensor, ...] = output if isinstance(output, tuple) else (output,)
                if reduced is not None:  # normalized again: encoders normalize in their own precision
                    tensors = tuple(unit_norm(tensor.float()) for tensor in tensors)
                return tuple(tensor.cpu().numpy() for tensor in tensors)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{self._device} ran out of memory on a batch of {len(arrays[0])} for {graph}; use a smaller batch"
            ) from error
        except RuntimeError as error:
            if self._mode == "eager":
                raise
            # Usually a missing compiler. Importing its specific error classes would take a second.
            message = " ".join(str(error).split())[:_MAX_MESSAGE]
            raise DeviceError(f"{self.info.provider} cannot run {graph} on {self._device}: {message}") from error


def resolve_device(name: str) -> torch.device:
    """Resolve "cpu", "cuda", "cuda:N" or "auto" to an available device.

    Raises:
        UsageError: unknown name.
        DeviceError: there is no such GPU; it is never replaced by another device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::([0-9]{1,4}))?", name)
    if match is None:
        raise UsageError(f"the backend torch runs on cpu, cuda, cuda:N or auto, not on {name!r}")
    if not torch.cuda.is_available():
        why = (
            "PyTorch sees no NVIDIA GPU" if torch.version.cuda else f"PyTorch {torch.__version__} is built without CUDA"
        )
        raise DeviceError(f"{name} is unavailable: {why}. Use the device cpu, or install the missing component")
    index, count = int(match[1] or 0), torch.cuda.device_count()
    if index >= count:
        raise DeviceError(f"{name} is unavailable: PyTorch sees {count} GPU(s), cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", index)


def _config(bundle: Bundle) -> ImageBindConfig:
    try:
        return ImageBindConfig.from_dict(bundle.manifest.model.config)
    except UsageError as error:
        raise BundleError(f"the manifest of {bundle.path} does not state the size of its encoders: {error}") from error


def _head(bundle: Bundle, path: str | Path | None, dim: int) -> Head:
    head = TemporalHead(0, dim) if path is None else load_head(path)
    model = bundle.manifest.model
    if (head.name, head.blocks, head.dim) != (model.head, model.head_layers, dim):
        raise UsageError(
            f"the bundle's head is {model.head} with {model.head_layers} block(s) for embeddings of {dim}; "
            + (
                f"{path} is {head.name} with {head.blocks} for {head.dim}"
                if path
                else "give its checkpoint: --head (in Python: `head`)"
            )
        )
    return head
