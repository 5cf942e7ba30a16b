"""Rebuilds the random weights behind the golden files from the names in the published key lists.

`rng(name)` is the generator that the golden values were made with; each weight has its own, seeded by its name.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig, Modality, published_entries

GOLDEN = Path(__file__).parents[1] / "golden"
MODALITIES: tuple[Modality, ...] = ("vision", "audio", "text")

_GAINS = (
    "norm_1.weight",
    "norm_2.weight",
    "norm_layer.weight",
    "pre_transformer_layer.0.weight",
    "modality_heads.vision.0.weight",
    "modality_heads.audio.0.weight",
    "modality_heads.text.proj.0.weight",
)


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(("dev:" + name).encode()))


def golden_entries(
    config: ImageBindConfig, modalities: Collection[Modality] = MODALITIES
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict: the published list for `huge` and `tiny`, made alike for other sizes."""
    file = GOLDEN / f"imagebind_{config.name}_keys.json"
    if file.exists():
        entries = {name: tuple(shape) for name, shape in json.loads(file.read_text()).items()}
    else:
        entries = published_entries(config, modalities)
    return {name: shape for name, shape in entries.items() if name.split(".")[1] in modalities}


def golden_state(config: ImageBindConfig, modalities: Collection[Modality] = MODALITIES) -> dict[str, Tensor]:
    """The golden state dict of `config` under its published names (float32; 4.3 GB for all of `huge`)."""
    scale = 0.02 if config.name == "huge" else 0.1
    state: dict[str, Tensor] = {}
    for name, shape in golden_entries(config, modalities).items():
        if name.endswith(".mask"):
            state[name] = torch.full(shape, -math.inf).triu(1)
        elif name.endswith(".log_logit_scale"):
            state[name] = torch.tensor(math.log(20 if ".audio." in name else 1 / 0.07))
        else:
            values = rng(name).standard_normal(shape, dtype=np.float32)
            values *= np.float32(scale)
            values += np.float32(name.endswith(_GAINS))
            state[name] = torch.from_numpy(values)
    return state


def write_golden_checkpoint(path: Path, config: ImageBindConfig, modalities: Collection[Modality] = MODALITIES) -> Path:
    """Write the golden weights of `config` as `.pth` or `.safetensors`, by the suffix of `path`; returns `path`.

    `huge` takes 4.3 GB of disk (one modality: 2.5, 0.3 or 1.4), so remove the file after use.
    """
    state = golden_state(config, modalities)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def golden_inputs() -> dict[str, Tensor]:
    """The inputs of the golden encoders, but for the tokens, which are in the golden files themselves."""
    g = rng("input")
    frames = g.standard_normal((2, 3, 224, 224), dtype=np.float32)
    mels = g.standard_normal((2, 1, 1, 128, 204), dtype=np.float32)
    return {"vision": torch.from_numpy(frames), "audio": torch.from_numpy(mels).squeeze(1)}


def golden_head_state(blocks: int = 1) -> dict[str, Tensor]:
    """The golden temporal head, under the names of a published one, with its unused entries."""
    names: dict[str, list[int]] = json.loads((GOLDEN / "temporal_head_keys.json").read_text())
    for index in range(1, blocks):
        more = {k.replace(".0.", f".{index}.", 1): v for k, v in names.items() if "_sa_blocks.0." in k}
        names = {**names, **more}
    return {
        name: torch.from_numpy(
            np.float32(0.05) * rng(name).standard_normal(shape, dtype=np.float32)
            + np.float32(name.endswith(("norm1.weight", "norm2.weight")))
        )
        for name, shape in names.items()
    }


def golden_head_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Audio and vision (3, 10, 1024) and texts (68, 1024), all scaled to unit norm."""

    def unit(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        rows = rng(name).standard_normal(shape, dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    audio, vision, text = unit("a", (3, 10, 1024)), unit("v", (3, 10, 1024)), unit("t", (68, 1024))
    return torch.from_numpy(audio), torch.from_numpy(vision), torch.from_numpy(text)


def inputs(config: ImageBindConfig) -> dict[str, Tensor]:
    """What the golden embeddings were made of."""
    return golden_inputs() | {"text": torch.from_numpy(golden(config)["tokens"])}


def golden(config: ImageBindConfig) -> dict[str, NDArray[np.float32]]:
    """Embeddings as the original gives them, and the tokens."""
    with np.load(GOLDEN / f"dev_{config.name}.npz") as file:
        return dict(file)


def error_of(model: ImageBind, modality: Modality) -> float:
    """Largest difference from the original after L2-normalizing."""
    embedding = getattr(model, modality)(inputs(model.config)[modality]).numpy()
    return difference(embedding, model.config, modality)


def difference(embedding: NDArray[np.float32], config: ImageBindConfig, modality: Modality) -> float:
    """Largest difference of `embedding` from the original's, which is L2-normalized first."""
    expected = golden(config)[modality]
    expected = expected / np.linalg.norm(expected, axis=-1, keepdims=True)
    assert embedding.dtype == np.float32
    assert embedding.shape == expected.shape
    return float(np.abs(embedding - expected).max())


def size_of(config: ImageBindConfig, modality: Modality) -> int:
    """Bytes of the float32 weights of one modality."""
    return 4 * sum(int(np.prod(shape)) for shape in golden_entries(config, (modality,)).values())


def peak_of_loading(path: Path, config: ImageBindConfig, modality: Modality) -> int:
    """Bytes that loading and encoding once add at the peak, in another process, where PyTorch is warm."""
    script = f"""
import sys, torch
from pathlib import Path
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

shape = dict(vision=(1, 3, 224, 224), audio=(1, 1, 128, 204), text=(1, 77))[{modality!r}]
x = torch.zeros(shape, dtype=torch.int64 if {modality!r} == "text" else torch.float32)
# PyTorch's own code is mapped as it is first used: that is not the model's.
getattr(ImageBind(ImageBindConfig.tiny(), ({modality!r},)), {modality!r})(x)
before = status("VmRSS:")
model = ImageBind.load({str(path)!r}, ImageBindConfig.from_dict({config.to_dict()!r}), ({modality!r},))
assert getattr(model, {modality!r})(x).isfinite().all()
print(1024 * (status("VmHWM:") - before))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return int(run.stdout)
