"""The archive's page lets a reader write a reader: the one on it reads what was written."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.archives import DAY, made_up_model, unit, write_seconds

from ovavel.runtime.archive.layout import ContextSecond, row_bytes

PAGE = (Path(__file__).parents[2] / "docs" / "archive.md").read_text("utf-8")
MODEL = made_up_model(audio=64, vision=100)
ROWS = (0, 5, 86_399)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ContextSecond]:
    random = np.random.default_rng(0)
    seconds = [
        ContextSecond(
            utc_s=DAY + row,
            vision=unit(random.normal(size=100)) if row else None,
            audio=unit(random.normal(size=64)),
        )
        for row in ROWS
    ]
    write_seconds(tmp_path / "archive", "yard", MODEL, seconds)
    monkeypatch.chdir(tmp_path)
    return seconds


def test_the_reader_on_the_page_reads_the_archive(written: list[ContextSecond]) -> None:
    (reader,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(reader.strip().splitlines()) <= 10
    found: dict[str, Any] = {}
    exec(compile(reader, "archive.md", "exec"), found)
    assert found["there"].tolist() == list(ROWS)
    for at, second in enumerate(written):
        assert second.audio is not None
        assert found["audio"][at] @ second.audio == pytest.approx(1, abs=5e-3)
        if second.vision is not None:
            assert found["vision"][at] @ second.vision == pytest.approx(1, abs=5e-3)


def test_the_bits_are_those_that_the_page_describes(written: list[ContextSecond]) -> None:
    """Written from the page, with nothing of ours but the size of a row."""
    day = Path("archive/context/yard/2026-11-28")
    stored = np.fromfile(day / "bits.u64", "<u8").reshape(86_400, -1)[5]
    expected = []
    for sense, size, width in (("vision", 100, 128), ("audio", 64, 64)):
        hashed = b"".join(hashlib.sha256(f"ovavel {n}".encode()).digest() for n in range(4))
        bits = [byte >> bit & 1 for byte in hashed for bit in range(8)]
        signs = np.where(bits[: 2 * width], 1, -1).reshape(2, width)
        hadamard = np.array([[(-1) ** (i & j).bit_count() for j in range(width)] for i in range(width)])
        vector = np.zeros(width, np.int64)
        vector[:size] = np.fromfile(day / f"{sense}.i8", np.int8).reshape(86_400, size)[5]
        for row in signs:
            vector = hadamard @ (vector * row)
        words = [sum(int(vector[64 * word + bit] >= 0) << bit for bit in range(64)) for word in range(width // 64)]
        expected += words
    assert stored.tolist() == expected
    assert row_bytes(MODEL)["bits.u64"] == 8 * len(expected)
