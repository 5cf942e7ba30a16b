"""A small server of KServe v2 over gRPC: it loads a model repository as Triton does, and computes with ONNX Runtime.

It checks of a `config.pbtxt` what Triton checks, adds what Triton adds, and does not join requests to batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

DTYPES = {
    schema.TYPE_FP32: ("FP32", np.float32, "tensor(float)"),
    schema.TYPE_INT64: ("INT64", np.int64, "tensor(int64)"),
}
VERSION = "2.73.0"


class Model:
    """One folder of a repository, loaded."""

    def __init__(self, folder: Path) -> None:
        """Raises ParseError where config.pbtxt is not of the schema, and ValueError where Triton refuses it."""
        self.config = text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), schema.ModelConfig())
        if self.config.name != folder.name or self.config.backend != "onnxruntime":
            raise ValueError(f"{folder.name}: another name, or another backend")
        (version,) = self.config.version_policy.specific.versions
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            folder / str(version) / self.config.default_model_filename, options, providers=["CPUExecutionProvider"]
        )
        self.version = str(version)
        self._check(self.config.input, self.session.get_inputs())
        self._check(self.config.output, self.session.get_outputs())
        self.config.platform = "onnxruntime_onnx"
        for number, group in enumerate(self.config.instance_group):
            group.name = f"{folder.name}_{number}"

    def _check(self, stated: Any, found: Any) -> None:
        """Compare what config.pbtxt says with what the graph has."""
        batch = [-1] if self.config.max_batch_size else []
        has = {
            each.name: (each.type, [-1 if not isinstance(size, int) else size for size in each.shape]) for each in found
        }
        says = {each.name: (DTYPES[each.data_type][2], [*batch, *each.dims]) for each in stated}
        if has != says:
            raise ValueError(f"{self.config.name}: config.pbtxt says {says}, and the graph has {has}")

    def infer(self, request: messages.ModelInferRequest) -> messages.ModelInferResponse:
        """Raises ValueError where Triton answers INVALID_ARGUMENT."""
        wanted = {each.name: each for each in self.config.input}
        if {each.name for each in request.inputs} != wanted.keys():
            raise ValueError(f"expected the inputs {sorted(wanted)}")
        arrays = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            of_type, dtype, _ = DTYPES[wanted[tensor.name].data_type]
            shape = list(tensor.shape)
            if self.config.max_batch_size:
                batch, *shape = shape
                if not 0 < batch <= self.config.max_batch_size:
                    raise ValueError(f"inference request batch-size must be <= {self.config.max_batch_size}")
            fits = len(shape) == len(wanted[tensor.name].dims) and all(
                stated in (-1, size) for stated, size in zip(wanted[tensor.name].dims, shape, strict=True)
            )
            if not fits or tensor.datatype != of_type:
                raise ValueError(f"unexpected shape or type of {tensor.name!r}")
            if len(raw) != np.dtype(dtype).itemsize * math.prod(tensor.shape):
                raise ValueError(f"unexpected number of bytes of {tensor.name!r}")
            arrays[tensor.name] = np.frombuffer(raw, dtype).reshape(tuple(tensor.shape))
        names = [each.name for each in request.outputs]
        response = messages.ModelInferResponse(model_name=self.config.name, model_version=self.version)
        for name, array in zip(names, self.session.run(names, arrays), strict=True):
            response.outputs.add(name=name, datatype="FP32", shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response


class TritonServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves a repository on loopback until `stop`."""

    def __init__(
        self,
        repository: Path,
        *,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        token: str | None = None,
        largest_bytes: int = -1,
    ) -> None:
        self.models = {folder.name: Model(folder) for folder in sorted(repository.iterdir())}
        self.altered: Callable[[messages.ModelInferResponse], object] = lambda response: None
        """Changes an answer before it is sent."""
        self.before: Callable[[messages.ModelInferRequest], object] = lambda request: None
        """Is called with each request before it is answered."""
        self.batches: list[tuple[str, int]] = []
        """Model and batch of each request."""
        self._token = token
        self._pool = ThreadPoolExecutor(8)
        options = [("grpc.max_receive_message_length", largest_bytes), ("grpc.max_send_message_length", -1)]
        self._server = grpc.server(self._pool, options=options)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        place = f"127.0.0.1:{port}"
        self.port = (
            self._server.add_secure_port(place, credentials) if credentials else self._server.add_insecure_port(place)
        )
        self.address = f"grpc{'s' if credentials else ''}://127.0.0.1:{self.port}"
        self._server.start()

    def kill(self) -> None:
        """Cut all connections at once, that of the request that is being answered too."""
        self._server.stop(None)

    def stop(self) -> None:
        """As `kill`, and wait until all threads have ended."""
        self._server.stop(None).wait()
        self._pool.shutdown()

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> messages.ServerMetadataResponse:  # noqa: N802
        self._let_in(context)
        return messages.ServerMetadataResponse(name="triton", version=VERSION, extensions=["model_configuration"])

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> messages.ModelReadyResponse:  # noqa: N802
        self._let_in(context)
        return messages.ModelReadyResponse(ready=request.name in self.models)

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> messages.ModelConfigResponse:  # noqa: N802
        return messages.ModelConfigResponse(config=self._model(request.name, request.version, context).config)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> messages.ModelInferResponse:  # noqa: N802
        model = self._model(request.model_name, request.model_version, context)
        self.batches.append((request.model_name, request.inputs[0].shape[0]))
        self.before(request)
        try:
            response = model.infer(request)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        self.altered(response)
        return response

    def _model(self, name: str, version: str, context: grpc.ServicerContext) -> Model:
        self._let_in(context)
        model = self.models.get(name)
        if model is None or version != model.version:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        return model

    def _let_in(self, context: grpc.ServicerContext) -> None:
        if self._token and ("authorization", f"Bearer {self._token}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid token")
