"""Energy used by a piece of work, if the device reports it."""

from __future__ import annotations

from pathlib import Path

from ovavel.eval.bench.meters.gpu import Gpu

__all__ = ["EnergyMeter"]

_RAPL = Path("/sys/class/powercap")


class EnergyMeter:
    """Reads the energy counter of a GPU, or those of the CPU packages (RAPL), which only root can read on Linux."""

    def __init__(self, device: str, gpu: Gpu | None, *, folder: Path = _RAPL) -> None:
        """Measure `device`, "cpu" or "cuda:N", which is `gpu`; None if the driver does not report it."""
        self._gpu = gpu
        self._packages = sorted(folder.glob("intel-rapl:[0-9]*")) if device == "cpu" else []
        self._packages = [package for package in self._packages if package.name.count(":") == 1]
        self._begin: list[float] | None = None

    def begin(self) -> None:
        """Record the counters."""
        self._begin = self._read()

    def end_j(self) -> float | None:
        """Return the joules since `begin`; None if unavailable."""
        end = self._read()
        if self._begin is None or end is None:
            return None
        spent = 0.0
        for number, (before, after) in enumerate(zip(self._begin, end, strict=True)):
            wrapped = after < before  # only the counters of a CPU are so short
            spent += after - before + (self._number(self._packages[number] / "max_energy_range_uj") if wrapped else 0.0)
        return spent

    def _read(self) -> list[float] | None:
        if self._gpu:
            energy_j = self._gpu.energy_j()
            return None if energy_j is None else [energy_j]
        try:
            return [self._number(package / "energy_uj") for package in self._packages] or None
        except (OSError, ValueError):
            return None

    @staticmethod
    def _number(path: Path) -> float:
        return int(path.read_text()) / 1e6
