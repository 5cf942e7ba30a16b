"""What the benchmark is made of: the search, the floor, the stamps, the meters."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from ovavel.eval.bench.camera import read_frame_s, read_sound_s, stamp_frame, stamp_sound
from ovavel.eval.bench.meters.cost import flops, parameters, weight_bytes
from ovavel.eval.bench.meters.energy import EnergyMeter
from ovavel.eval.bench.meters.gemm import gemm_model
from ovavel.eval.bench.meters.gpu import ClockWatch, Gpu, open_gpu
from ovavel.eval.bench.meters.memory import MemoryWatch
from ovavel.eval.bench.pipeline import Pipeline
from ovavel.eval.bench.report import Ratio, Spread, percentile
from ovavel.eval.bench.scenarios.live import largest_passing
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.economy.work import work_of
from ovavel.runtime.errors import BundleError
from ovavel.runtime.types import RATE_HZ, Window
from ovavel.training.models.imagebind.model import FRAME, LOG_MEL, ImageBind, ImageBindConfig
from ovavel.training.models.imagebind.pooled import PooledTower


@given(limit=st.integers(0, 3000), guess=st.integers(-5, 4000), most=st.integers(1, 2500))
def test_the_search_ends_within_two_per_cent_of_the_truth(limit: int, guess: int, most: int) -> None:
    asked: list[int] = []

    def passes(cameras: int) -> bool:
        asked.append(cameras)
        return cameras <= limit

    found = largest_passing(passes, guess=guess, most=most)
    truth = min(limit, most)
    assert found <= truth
    assert truth - found <= max(1, 0.02 * truth) - (truth <= 50)  # exact where a camera is more than 2 %
    assert found == 0 or found in asked
    assert all(1 <= cameras <= most for cameras in asked)
    assert len(asked) == len(set(asked)) <= 60


@pytest.mark.parametrize("config", [ImageBindConfig.tiny(), ImageBindConfig.huge()])
def test_operations_and_weights_are_those_that_pytorch_counts(config: ImageBindConfig) -> None:
    with torch.device("meta"):
        model = ImageBind(config, ("vision", "audio")).eval()
        for graph, shape in (("vision", FRAME), ("audio", LOG_MEL)):
            tower = model.towers[graph]
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                tower(torch.zeros(1, *shape))
            assert flops(config.to_dict(), graph) == counter.get_total_flops()
            assert parameters(config.to_dict(), graph) == sum(p.numel() for p in tower.parameters())


def test_pooled_sound_takes_the_operations_that_pytorch_counts() -> None:
    config = ImageBindConfig.huge()
    with torch.device("meta"):
        tower = PooledTower(ImageBind(config, ("audio",)).towers["audio"].eval())  # type: ignore[arg-type]
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            tower(torch.zeros(1, *LOG_MEL))
    assert flops(config.to_dict(), "audio", "int8-any-pooled") == counter.get_total_flops()
    assert flops(config.to_dict(), "vision", "int8-any-pooled") == flops(config.to_dict(), "vision")
    full, pooled = (work_of(config.to_dict(), {"vision": "int8", "audio": audio}) for audio in ("int8", "int8-pooled"))
    assert full
    assert pooled
    assert pooled.audio_gflop == counter.get_total_flops() / 1e9 < full.audio_gflop
    assert pooled.vision_gflop == full.vision_gflop


def test_a_manifest_without_sizes_is_reported() -> None:
    with pytest.raises(BundleError, match="size of the vision encoder"):
        flops({"vision": {"width": 3}}, "vision")


def test_weights_are_the_files_that_a_graph_reads(exported_bundle: Path) -> None:
    bundle = Bundle.open(exported_bundle)
    backend = open_backend(bundle, device="cpu", threads=1)
    graphs: tuple[Graph, ...] = ("vision", "audio")
    for graph in graphs:
        least = 4 * parameters(bundle.manifest.model.config, graph)
        assert least <= weight_bytes(bundle, graph, backend.info) < 1.3 * least
    backend.close()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_product_of_matrices_is_one(precision: str) -> None:
    session = onnxruntime.InferenceSession(gemm_model(precision, 48, 32), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    weights = (
        random.integers(-64, 64, (48, 32), np.int8) if precision == "int8" else random.random((48, 32), np.float32)
    )
    left = np.arange(3 * 48).reshape(3, 48).astype(np.uint8 if precision == "int8" else np.float32)
    (product,) = session.run(None, {"left": left})
    kind = np.int32 if precision == "int8" else np.float32
    np.testing.assert_allclose(product, left.astype(kind) @ weights.astype(kind), rtol=1e-5)


@given(drawn_s=st.floats(0, 1e7), age_s=st.floats(0, 30))
def test_the_drawing_time_is_read_from_a_frame(drawn_s: float, age_s: float) -> None:
    random = np.random.default_rng(0)
    picture = stamp_frame(drawn_s).astype(int) + random.integers(-40, 41, (240, 320, 3))  # what a codec does to it
    read = read_frame_s(picture.clip(0, 255).astype(np.uint8), drawn_s + age_s)
    assert read == pytest.approx(drawn_s, abs=2e-3)
    assert read_frame_s(np.full((240, 320, 3), 128, np.uint8), drawn_s) is None


@given(begin_s=st.floats(0, 1e6), age_s=st.floats(0, 15))
def test_the_recording_time_is_read_from_sound(begin_s: float, age_s: float) -> None:
    samples = stamp_sound(begin_s, 640)
    last_s = begin_s + 639 / RATE_HZ
    read = read_sound_s(samples[None].astype(np.float32) / 32768, last_s + age_s)
    wrapped = abs(read - last_s) % 16
    assert min(wrapped, 16 - wrapped) < 2e-3


def test_percentiles_are_by_the_nearest_rank() -> None:
    assert [percentile([3.0, 1.0, 2.0, 4.0], p) for p in (1, 25, 50, 51, 99, 100)] == [1, 1, 2, 3, 4, 4]
    assert Spread.of([5.0]) == Spread(p50=5, p90=5, p95=5, p99=5)
    ratio = Ratio.of([2.0, 4.0, 6.0], [1.0, 2.0])  # one run was cut off
    assert (ratio.of_medians, ratio.p50) == (2, 2)


def test_warm_up_ends_when_it_is_steady_or_at_its_limit(exported_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(exported_bundle)
    pipeline = Pipeline(bundle, open_backend(bundle, device="cpu", threads=1))
    window = Window(index=0, start_s=0.0, frame=None, waveform=None, captured_s=0.0)

    def times(durations_ms: Any) -> None:
        monkeypatch.setattr(Pipeline, "run", lambda *_: next(durations_ms))

    times(iter([900.0, 500.0, 480.0, *[400.0] * 9]))
    warm = pipeline.warm_up([window], limit_s=60)
    assert (warm.windows, warm.steady) == (8, True)  # 400, 400, 400 after 480, 400, 400
    times(iter(1000.0 * 1.5**i for i in range(99)))
    warm = pipeline.warm_up([window], limit_s=1e-9)
    assert (warm.windows, warm.steady) == (6, False)
    assert warm.moved == pytest.approx(1.5**3 - 1)
    pipeline.close()


class FakeDriver:
    """NVML as a library: what it has no answer for returns 3."""

    def __init__(self, *, gpus: int = 1, **answers: int) -> None:
        self.gpus, self.answers = gpus, answers

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.gpus
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        handle._obj.value = index.value + 100
        return 0 if index.value < self.gpus else 6

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        return 0 if uuid == b"GPU-1" else 6

    def __getattr__(self, name: str) -> Any:
        if name not in self.answers:
            raise AttributeError(name)

        def call(handle: Any, *arguments: Any) -> int:
            target = arguments[-1]._obj
            setattr(target, "used" if hasattr(target, "used") else "value", self.answers[name])
            return 0

        return call


def test_gpu_figures_come_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    driver = FakeDriver(
        nvmlDeviceGetMemoryInfo=3 * 2**20,
        nvmlDeviceGetTotalEnergyConsumption=5000,
        nvmlDeviceGetClockInfo=1700,
        nvmlDeviceGetPowerUsage=250_000,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x4,
    )
    gpu = open_gpu("cuda:0", library=driver)
    assert gpu
    assert (gpu.memory_mb(), gpu.energy_j()) == (3.0, 5.0)
    assert gpu.clocks() == "cores 1700 MHz, memory 1700 MHz, 250 W, limited by power"
    meter = EnergyMeter("cuda:0", gpu)
    meter.begin()
    driver.answers["nvmlDeviceGetTotalEnergyConsumption"] = 7500
    assert meter.end_j() == 2.5
    silent = Gpu(FakeDriver(), gpu._handle)
    assert (silent.memory_mb(), silent.energy_j(), silent.clocks()) == (None, None, None)
    assert open_gpu("cpu", library=driver) is None
    assert open_gpu("cuda:1", library=driver) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0,GPU-1")
    assert open_gpu("cuda:0", library=driver) is None
    assert open_gpu("cuda:1", library=driver)
    assert open_gpu("cuda:2", library=driver) is None


@pytest.mark.parametrize(
    ("variables", "index"),
    [
        ({}, None),  # CUDA's second may be the bus's first
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, None),
        ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, None),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 1),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1,0"}, 0),
    ],
)
def test_of_several_gpus_the_right_one_is_asked_or_none(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], index: int | None
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    gpu = open_gpu("cuda:1", library=FakeDriver(gpus=2))
    assert (gpu and gpu._handle.value) == (None if index is None else index + 100)


def test_cpu_energy_is_read_where_permitted(tmp_path: Path) -> None:
    meter = EnergyMeter("cpu", None, folder=tmp_path)
    meter.begin()
    assert meter.end_j() is None
    for name, energy in (("intel-rapl:0", 9_000_000), ("intel-rapl:0:0", 1), ("intel-rapl:1", 2_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{energy}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    meter = EnergyMeter("cpu", None, folder=tmp_path)
    meter.begin()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("1000000\n")  # starts over at 10 J
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("2500000\n")
    assert meter.end_j() == pytest.approx(2.5)
    other = EnergyMeter("cuda:0", None, folder=tmp_path)  # a GPU that nobody can tell of: not the CPU's energy
    other.begin()
    assert other.end_j() is None


def test_the_gpu_that_auto_finds_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    used_mb = iter([100.0, 350.0])
    asked: list[str] = []

    class Card:
        def memory_mb(self) -> float:
            return next(used_mb)

    def find(device: str) -> Card | None:
        asked.append(device)
        return Card() if device.startswith("cuda") else None

    monkeypatch.setattr("ovavel.eval.bench.meters.memory.open_gpu", find)
    watch = MemoryWatch("auto")
    watch.begin()
    assert watch.end("cuda:0").device_mb == 250
    used_mb = iter([100.0])
    watch.begin()
    assert watch.end("cpu").device_mb is None
    MemoryWatch("cpu")
    assert asked == ["cuda:0", "cpu"]


def test_clocks_are_read_during_the_work() -> None:
    class Busy:
        working, read = True, threading.Semaphore(0)

        def clocks(self) -> str:
            self.read.release()
            return "busy" if self.working else "idle"

    gpu = Busy()
    with ClockWatch(gpu, every_s=0.001) as watch:  # type: ignore[arg-type]
        for _ in range(2):  # the first reading is whole once the second begins
            assert gpu.read.acquire(timeout=60)
    gpu.working = False
    assert watch.reading == "busy"
    with ClockWatch(None) as watch:
        pass
    assert watch.reading is None


def test_clocks_read_when_the_work_is_over_do_not_count() -> None:
    class Slow:
        begun = threading.Event()

        def clocks(self) -> str:
            self.begun.set()
            assert watch._over.wait(60)
            return "idle"

    watch = ClockWatch(Slow(), every_s=0.001)  # type: ignore[arg-type]
    with watch:
        assert Slow.begun.wait(60)
    assert watch.reading is None
