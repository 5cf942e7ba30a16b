"""Triton backend: each graph is a model of one server, asked with binary tensors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.backends.graph_backend import GraphBackend
from ovavel.runtime.backends.triton.client import Client
from ovavel.runtime.backends.triton.models import VERSION, check_model
from ovavel.runtime.bundle.graphs import DECIDING, Graph, GraphSpec, graph_specs
from ovavel.runtime.errors import DeviceError, UsageError
from ovavel.runtime.reporting.text import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["TritonBackend", "open_models"]

_TYPES: Mapping[str, Any] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
"""KServe's names of types → how a tensor is sent."""


def open_models(client: Client, bundle: Bundle, graphs: Sequence[Graph], asked: str | None) -> TritonBackend:
    """Check that the server has `graphs` of `bundle`; see `open_triton`."""
    messages, where = client.library.messages, f"the Triton server at {client.address}"
    # Whoever starts should learn at once that the server is away.
    about, *ready = client.ask(
        ("ServerMetadata", messages.ServerMetadataRequest()),
        *(("ModelReady", messages.ModelReadyRequest(name=graph, version=str(VERSION))) for graph in graphs),
        patient=False,
    )
    for graph, each in zip(graphs, ready, strict=True):
        if not each.ready:
            raise DeviceError(
                f"{where} has no model {graph!r} that is ready; see its log, and give it the repository that "
                "'ovavel bundle triton' writes"
            )
    answers = client.ask(*(_config_question(client, graph) for graph in graphs), patient=False)
    configs = {graph: each.config for graph, each in zip(graphs, answers, strict=True)}
    precision = {
        graph: check_model(client.library, config, bundle, graph, asked, where) for graph, config in configs.items()
    }
    encoders = [configs[graph] for graph in ("vision", "audio") if graph in configs]
    info = BackendInfo(
        name="triton",
        engine="triton",
        device=client.address,
        provider=_provider(client, encoders or list(configs.values())),
        precision=precision,
        threads=1,
        batch=min((each.max_batch_size for each in encoders), default=1),
        concurrent=True,
        versions={one_line(about.name) or "triton": one_line(about.version), "models": _hash(configs)},
    )
    return TritonBackend(client, bundle, info, configs)


class TritonBackend(GraphBackend):
    """Models of one server. Open it with `open_triton`."""

    def __init__(self, client: Client, bundle: Bundle, info: BackendInfo, configs: Mapping[Graph, Any]) -> None:
        """Run each graph with the model that `configs` describes."""
        super().__init__(info, encoders=bundle.manifest.encoders, classes=len(bundle.vocabulary.names))
        self._client = client
        self._configs = dict(configs)
        self._specs = graph_specs(bundle.manifest.encoders)

    def close(self) -> None:
        """End the connection. May be called twice."""
        super().close()
        self._client.close()

    def _compute(self, graph: Graph, *inputs: NDArray[Any]) -> Sequence[NDArray[np.float32]]:
        shapes = _shapes(graph, self._specs[graph], inputs)
        if graph == "head":
            return self._infer(graph, inputs, shapes)
        (rows,), size = inputs, self._configs[graph].max_batch_size
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        answers = [self._infer(graph, (part,), {"embedding": (len(part), *shapes["embedding"][1:])}) for part in parts]
        return [np.concatenate([answer[0] for answer in answers])]

    def _infer(
        self, graph: Graph, inputs: Sequence[NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]
    ) -> list[NDArray[np.float32]]:
        """Ask for the outputs, which are of `shapes`, and whether the model is still the one that was opened.

        A server that was restarted, or loads changed models, may have another, and nothing in an answer says so.
        """
        request = self._client.library.messages.ModelInferRequest(model_name=graph, model_version=str(VERSION))
        for name, array in zip(self._specs[graph].inputs, inputs, strict=True):
            datatype = "INT64" if array.dtype == np.int64 else "FP32"
            request.inputs.add(name=name, datatype=datatype, shape=array.shape)
            request.raw_input_contents.append(array.astype(_TYPES[datatype], copy=False).tobytes())
        for name in shapes:
            request.outputs.add(name=name)
        response, now = self._client.ask(("ModelInfer", request), _config_question(self._client, graph))
        if now.config != self._configs[graph]:
            raise DeviceError(
                f"the Triton server at {self._client.address} now has another model {graph!r} or config.pbtxt than "
                "when it was connected to; start again, and verify it with 'ovavel bundle check'"
            )
        return [self._array(graph, response, name, shape) for name, shape in shapes.items()]

    def _array(self, graph: Graph, response: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the output `name`.

        Raises:
            DeviceError: it is missing, of another type or shape, or has values that are not numbers.
        """
        place = next((i for i, each in enumerate(response.outputs) if each.name == name), None)
        raw = (
            response.raw_output_contents[place]
            if place is not None and place < len(response.raw_output_contents)
            else b""
        )
        found = (
            "nothing" if place is None else f"{response.outputs[place].datatype} {tuple(response.outputs[place].shape)}"
        )
        model = f"the model {graph!r} of the Triton server at {self._client.address}"
        if found != f"FP32 {shape}" or len(raw) != 4 * math.prod(shape):
            raise DeviceError(
                f"{model} returns {one_line(found)[:100]} in {len(raw)} bytes as {name!r}, and FP32 {shape} is needed; "
                "see the server's log, and verify it with 'ovavel bundle check'"
            )
        array: NDArray[np.float32] = np.frombuffer(raw, _TYPES["FP32"]).reshape(shape).astype(np.float32)
        if not np.isfinite(array).all():
            raise DeviceError(
                f"{model} returns values that are not finite numbers as {name!r}; use another precision, and verify "
                "it with 'ovavel bundle check'"
            )
        return array


def _config_question(client: Client, graph: Graph) -> tuple[str, Any]:
    return "ModelConfig", client.library.messages.ModelConfigRequest(name=graph, version=str(VERSION))


def _shapes(graph: Graph, spec: GraphSpec, inputs: Sequence[NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each output for `inputs`.

    Raises:
        UsageError: the inputs do not have the graph's shapes and types.
    """
    sizes: dict[str, int] = {}
    dtype = np.int64 if "tokens" in spec.inputs else np.float32
    for shape, array in zip(spec.inputs.values(), inputs, strict=True):
        fits = array.ndim == len(shape) and array.dtype == dtype and array.size > 0
        if not fits or any(
            there != (sizes.setdefault(size, there) if isinstance(size, str) else size)
            for size, there in zip(shape, array.shape, strict=True)
        ):
            given = ", ".join(f"{each.shape} {each.dtype}" for each in inputs)
            raise UsageError(f"the {graph} graph does not take {given}")
    return {
        name: tuple(sizes[size] if isinstance(size, str) else size for size in shape)
        for name, shape in spec.outputs.items()
    }


def _provider(client: Client, configs: Sequence[Any]) -> str:
    """What the server says that it runs the models with, e.g. "onnxruntime on KIND_GPU"."""
    kinds = client.library.configs.ModelInstanceGroup.Kind
    ways = (
        f"{each.backend or each.platform} on {kinds.Name(group.kind)}"
        for each in configs
        for group in each.instance_group
    )
    return one_line(", ".join(dict.fromkeys(ways)) or "unknown")


def _hash(configs: Mapping[Graph, Any]) -> str:
    """Return a hash of what decides how windows are computed, so that a gate is valid for exactly that.

    Other instances, accelerators or batches may compute otherwise. A text graph decides nothing.
    """
    digest = hashlib.sha256()
    for graph in DECIDING:
        if graph in configs:
            digest.update(configs[graph].SerializeToString(deterministic=True))
    return digest.hexdigest()[:16]
