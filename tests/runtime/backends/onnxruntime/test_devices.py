"""Which device it runs on, and what it needs there."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from ovavel.runtime.backends import open_backend
from ovavel.runtime.backends.onnxruntime.backend import auto_device
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import BundleError, DeviceError, UsageError


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "CPU", "", "tpu:0"])
def test_an_unknown_device_is_refused_with_those_available(bundle: Bundle, device: str) -> None:
    with pytest.raises(DeviceError, match="offers auto, cpu"):
        open_backend(bundle, device=device, graphs=("head",))


def test_cuda_runs_on_cuda_or_not_at_all(bundle: Bundle) -> None:
    import onnxruntime

    with pytest.raises(DeviceError, match=r"cuda:99|\[gpu\]"):  # there is no GPU number 99 anywhere
        open_backend(bundle, device="cuda:99", graphs=("head",))
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert open_backend(bundle, device="auto", graphs=("head",)).info.device == "cpu"


@pytest.fixture
def built_for_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ONNX Runtime says that it was built for CUDA."""
    import onnxruntime

    auto_device.cache_clear()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    yield
    auto_device.cache_clear()


@pytest.mark.usefixtures("built_for_cuda")
def test_without_a_gpu_auto_is_the_cpu_and_reports_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for _ in range(2):
        assert open_backend(bundle, device="auto", graphs=("head",)).info.device == "cpu"
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "running on the CPU, because ONNX Runtime cannot use a GPU"
    ]


@pytest.mark.usefixtures("built_for_cuda")
def test_with_a_gpu_any_other_mistake_is_an_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", lambda *_: None)
    with pytest.raises(UsageError, match="onnxruntime-cuda does not run int8"):
        open_backend(bundle, precision="int8")
    with pytest.raises(BundleError, match="bf16"):
        open_backend(bundle, precision="bf16")
    (bundle.path / "head.onnx").write_bytes(b"no graph")
    with pytest.raises((BundleError, DeviceError), match=r"head\.onnx"):
        open_backend(bundle, graphs=("head",))


@pytest.fixture
def preloaded(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Where ONNX Runtime was asked to load CUDA's libraries from; one of them is missing everywhere."""
    import onnxruntime

    folders: list[str | None] = []

    def preload(directory: str | None = None) -> None:
        folders.append(directory)
        print("Failed to load libcufft.so.12: libcufft.so.12: cannot open shared object file")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    return folders


@pytest.mark.usefixtures("built_for_cuda")
@pytest.mark.parametrize("fails", [True, False])
def test_a_cuda_library_that_does_not_load_is_named(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    preloaded: list[str | None],
    fails: bool,
) -> None:
    import onnxruntime

    opened: list[bool] = []

    def open_it(*_: object, **__: object) -> SimpleNamespace:
        opened.append(bool(preloaded))
        if fails:
            raise RuntimeError("CUDA failure")
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_it)
    monkeypatch.setattr(onnxruntime, "__version__", "1.30.0")
    with pytest.raises(DeviceError, match=r"Install libcufft\.so\.12, .*--device cpu"):
        open_backend(bundle, device="cuda", precision="fp32", graphs=("head",))
    assert opened == [True], "its libraries come first"
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("built_for_cuda")
def test_auto_loads_the_libraries_before_it_probes(
    monkeypatch: pytest.MonkeyPatch, preloaded: list[str | None]
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", lambda *_: preloaded[0])
    assert auto_device() == "cuda"


@pytest.mark.usefixtures("built_for_cuda")
def test_an_older_version_does_not_record(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__version__", "1.29.0")
    with pytest.raises(DeviceError, match=r"1\.30 or newer is needed"):
        open_backend(bundle, device="cuda", precision="fp32", graphs=("vision",))


@pytest.mark.usefixtures("built_for_cuda")
def test_a_version_without_the_heads_kernels_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__version__", "1.26.1")
    with pytest.raises(DeviceError, match=r"1\.26\.1 cannot run the head on a GPU; 1\.27 or newer is needed"):
        open_backend(bundle, device="cuda", precision="fp32", graphs=("head",), cuda_graphs=False)
