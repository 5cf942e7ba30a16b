"""The files that ship, and folders of others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import NAMES
from support.eval.demo import SECONDS, demo, write_truth

from ovavel.eval.demo.assets import Assets
from ovavel.eval.demo.play import ENOUGH_EVE
from ovavel.runtime.errors import DatasetError

SHIPPED = Path(__file__).parents[3] / "eval" / "demo" / "assets"
MIB = 2**20

WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript"):
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Missing())
"""


class TestShipped:
    def test_it_is_small_and_whole(self) -> None:
        assets = Assets.open()
        assert assets.bundle.path == SHIPPED / "bundle"
        assert sum(file.stat().st_size for file in assets.bundle.path.iterdir()) <= 6 * MIB
        assert assets.clip.stat().st_size <= 2 * MIB
        assert len(assets.truth.labels) == 40
        assert len(assets.bundle.vocabulary) - 1 >= 48

    def test_its_clip_is_what_a_browser_plays(self) -> None:
        import av

        with av.open(str(SHIPPED / "clip.mp4")) as container:
            assert container.duration / 1e6 == pytest.approx(40, abs=0.2)
            assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
            assert container.streams.video[0].pix_fmt == "yuv420p"

    def test_its_events_match_the_truth_without_torch(self, tmp_path: Path) -> None:
        process = demo(SHIPPED, "--fast", "--out", tmp_path / "out", prelude=WITHOUT_TORCH)
        out, err = process.communicate(timeout=100)
        assert (process.returncode, err) == (0, "")
        assert "do not match" not in out
        document = json.loads((tmp_path / "out" / "demo.json").read_bytes())
        assert document["seconds"] == 40
        assert document["scores"]["eve"] >= ENOUGH_EVE >= 0.7

    def test_its_licence_permits_shipping_it(self) -> None:
        assert "NC" not in Assets.open().bundle.manifest.model.licence


def test_assets_that_do_not_belong_together_are_refused(world: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(world, tmp_path / "world")
    for changes, what in (
        ({"labels": ("",) * 3}, "3 labels"),
        ({"labels": ("unheard of",) * SECONDS}, "names differ"),
        ({"names": NAMES[:2]}, "names differ"),
        ({"notes": ("heard, but out of sight",)}, "1 notes"),
    ):
        write_truth(folder, **changes)
        with pytest.raises(DatasetError, match=what):
            Assets.open(folder)
    write_truth(folder, names=(*NAMES, "other"))
    Assets.open(folder)
    (folder / "truth.json").write_text('{"more": ' + "[" * 100_000)
    with pytest.raises(DatasetError, match=r"truth\.json cannot be read"):
        Assets.open(folder)
    (folder / "truth.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"truth\.json cannot be read"):
        Assets.open(folder)
    (folder / "clip.mp4").unlink()
    with pytest.raises(DatasetError, match=r"no .*clip\.mp4\. Install ovavel again"):
        Assets.open(folder)
