"""Small recipes, and what a run leaves in its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ovavel.training.fit.folder import EPOCHS
from ovavel.training.fit.recipes import Recipe
from ovavel.training.fit.result import RESULT
from ovavel.training.fit.times import TIMES
from ovavel.training.fit.train import HEAD, REPORT

FAST = Recipe(epochs=3, learning_rate=1e-3, hidden=16, ffn=24)
ALL_AT_ONCE = replace(FAST, gate=0.5, learn_gate=True, mixup=0.3, ema=0.9, label_smoothing=0.1, halve_at=(1,))

OTHERS = {
    "ave": replace(FAST, head="ave", hidden=None, ffn=None),
    "psp": replace(FAST, head="psp", hidden=None, ffn=None),
    "cmra": replace(FAST, head="cmra", hidden=None),
    "mm-pyramid": replace(FAST, head="mm-pyramid", hidden=None, levels=2),
}

FILES = (HEAD, RESULT, REPORT, EPOCHS)
ALL_FILES = sorted((*FILES, TIMES))


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


class Cut(Exception):  # noqa: N818 - not an error
    pass


COMPLEX = replace(FAST, head="complex", hidden=None, ffn=None, trunk="demo", ema=0.9, select="val-seen")
