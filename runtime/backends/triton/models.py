"""The models of a Triton server, one for each graph of a bundle: what their `config.pbtxt` says, and what it must say.

A model with a batch dimension leaves it out of its dims, and Triton joins requests along it. The head is without: its
texts are not of a batch, so requests cannot be joined.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ovavel.runtime.backends.triton.library import Library
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import TEXT_GRAPHS, Graph, Shape, graph_specs
from ovavel.runtime.bundle.precision import any_form, exact_precisions, of_graph
from ovavel.runtime.errors import BundleError, UsageError

__all__ = ["VERSION", "ModelSettings", "Processor", "check_model", "model_config", "repository_precision"]

Processor: TypeAlias = Literal["gpu", "cpu"]

VERSION = 1
"""The one version of each model; another bundle is another repository."""
_GRAPH, _PRECISION = "ovavel_graph_sha256", "ovavel_precision"
"""Parameters of a model: Triton passes them on and makes nothing of them."""
_QUEUE_DELAY_US = 2000
"""How long a window waits for others to be encoded with it: little beside the time that encoding takes."""
_AGAIN = "write the repository again with 'ovavel bundle triton'"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How a server runs the encoders."""

    processor: Processor
    max_batch: int
    """Windows to encode at once, at most."""
    instances: int
    """Copies of each encoder, on each GPU."""


def repository_precision(bundle: Bundle, graph: Graph, processor: Processor, asked: str | None) -> str:
    """Return the precision of `graph` in a repository: as asked, else the bundle's choice for CUDA, or fp32 on a CPU.

    The server's CPU is unknown, so that only precisions count that are exact on every CPU.

    Raises:
        UsageError: ONNX Runtime does not run the requested precision there.
        BundleError: the bundle lacks the graph, or this precision of it.
    """
    if processor == "gpu":
        return bundle.precision(graph, "onnxruntime-cuda", asked)
    exact = exact_precisions("onnxruntime-cpu", ())
    if any_form(asked or "fp32") not in exact:
        raise UsageError(f"{asked} is not exact on every CPU; name another --precision: {', '.join(exact)}")
    chosen = of_graph(graph, any_form(asked or "fp32"))
    if graph not in ("vision", "audio") and chosen not in bundle.manifest.graphs.get(graph, {}):
        chosen = "fp32"
    bundle.graph(graph, chosen)
    return chosen


def model_config(library: Library, bundle: Bundle, graph: Graph, precision: str, settings: ModelSettings) -> Any:
    """Return the `ModelConfig` of `graph` in `precision`."""
    head = graph == "head"
    on_gpu = settings.processor == "gpu" and not head  # which is too small to gain anything there
    config = _border(library, bundle, graph)
    config.backend = "onnxruntime"
    config.default_model_filename = "model.onnx"
    config.version_policy.specific.versions.append(VERSION)
    if not head:
        config.max_batch_size = settings.max_batch
        config.dynamic_batching.max_queue_delay_microseconds = _QUEUE_DELAY_US
    kind = library.configs.ModelInstanceGroup.Kind.Value("KIND_GPU" if on_gpu else "KIND_CPU")
    config.instance_group.add(kind=kind, count=1 if head else settings.instances)
    manifest = bundle.manifest
    parameters = {
        _GRAPH: _graph_sha256(bundle, graph, precision),
        _PRECISION: precision,
        "ovavel_bundle_sha256": bundle.sha256,
        "ovavel_version": manifest.ovavel_version,
        "ovavel_model": manifest.model.name,
        "ovavel_licence": manifest.model.licence,
    }
    if head:
        parameters["intra_op_thread_count"] = "1"
    if on_gpu:
        # As `cuda_options` of the backend onnxruntime. The server reads the first two here and the third only there.
        parameters |= {"cudnn_conv_algo_search": "1", "arena_extend_strategy": "1"}  # heuristic; as requested
        accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
        accelerator.parameters["use_tf32"] = "0"
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def check_model(library: Library, config: Any, bundle: Bundle, graph: Graph, asked: str | None, where: str) -> str:
    """Check that a server's model is `graph` of `bundle`, and return its precision; `where` names the server.

    Raises:
        BundleError: it is of another bundle, has another precision than `asked`, or takes and returns something else.
    """
    model = f"the model {graph!r} of {where}"
    noted: dict[str, str] = {key: value.string_value for key, value in config.parameters.items()}
    precision = noted.get(_PRECISION, "")
    if _GRAPH not in noted or not precision:
        raise BundleError(f"{model} was not written by ovavel; {_AGAIN}")
    known = precision in bundle.manifest.graphs.get(graph, {})
    if not known or noted[_GRAPH] != _graph_sha256(bundle, graph, precision):
        raise BundleError(
            f"{model} is not the {precision} {graph} graph of the bundle {bundle.path}: name the bundle that it was "
            f"written from, or {_AGAIN}"
        )
    if (
        asked
        and graph in ("vision", "audio")
        and precision not in (of_graph(graph, asked), of_graph(graph, any_form(asked)))
    ):
        raise BundleError(f"{model} is in {precision}, not in {asked}: leave out --precision, or {_AGAIN}")
    wanted = _border(library, bundle, graph)
    for kind in ("input", "output"):
        has, needs = (_tensors(library, getattr(each, kind)) for each in (config, wanted))
        if has != needs:
            raise BundleError(
                f"the config.pbtxt of {model} has the {kind} {has}, and the graph has {needs}; correct it, or {_AGAIN}"
            )
    if (config.max_batch_size > 0) != (graph != "head"):
        needs_batch = "0" if graph == "head" else "at least 1"
        raise BundleError(
            f"the config.pbtxt of {model} has the max_batch_size {config.max_batch_size}, and {needs_batch} is "
            f"needed; correct it, or {_AGAIN}"
        )
    return precision


def _border(library: Library, bundle: Bundle, graph: Graph) -> Any:
    """Return a `ModelConfig` with the name, inputs and outputs of `graph`."""
    spec = graph_specs(bundle.manifest.encoders)[graph]
    config = library.configs.ModelConfig(name=graph)
    of_inputs = library.configs.TYPE_INT64 if graph in TEXT_GRAPHS else library.configs.TYPE_FP32
    for name, shape in spec.inputs.items():
        config.input.add(name=name, data_type=of_inputs, dims=_dims(graph, shape))
    for name, shape in spec.outputs.items():
        config.output.add(name=name, data_type=library.configs.TYPE_FP32, dims=_dims(graph, shape))
    return config


def _dims(graph: Graph, shape: Shape) -> list[int]:
    return [-1 if isinstance(size, str) else size for size in (shape if graph == "head" else shape[1:])]


def _tensors(library: Library, tensors: Any) -> str:
    """Describe inputs or outputs, in an order of their own: Triton goes by names."""
    texts = (f"{each.name} {library.configs.DataType.Name(each.data_type)} {list(each.dims)}" for each in tensors)
    return ", ".join(sorted(texts)) or "nothing"


def _graph_sha256(bundle: Bundle, graph: Graph, precision: str) -> str:
    """Return a hash over the files of one graph, weights included."""
    files = (f"{bundle.manifest.files[name].sha256}\n" for name in bundle.graph_files(graph, precision))
    return hashlib.sha256("".join(files).encode()).hexdigest()
