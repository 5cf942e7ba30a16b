"""The cameras of the virtual site, as a source reads them: picture and sound together, without end."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from support.media_factory import make_clip

from ovavel.eval.demo.cameras.film import pieces
from ovavel.eval.demo.cameras.http import HTTPCamera
from ovavel.eval.demo.cameras.rtsp import RTSPCamera
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Frame, Gap, Samples

LENGTH_S = 3.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (720, 960, 3), np.uint8)  # key frames of many packets
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return make_clip(path, duration_s=LENGTH_S, fps=10, codec="libx264", picture=lambda time_s: noise)


@pytest.mark.parametrize("kind", [HTTPCamera, RTSPCamera])
def test_picture_and_sound_come_on_one_clock_and_do_not_end(
    clip: Path, kind: type[HTTPCamera] | type[RTSPCamera]
) -> None:
    with closing(kind(clip, 0.0)) as camera, closing(MediaSource(camera.url, realtime=True)) as source:
        assert source.senses == {"vision", "audio"}
        newest = {Frame: 0.0, Samples: 0.0}
        pictures = 0
        for chunk in source.chunks():
            assert not isinstance(chunk, Gap), chunk
            if isinstance(chunk, Frame | Samples):
                newest[type(chunk)] = chunk.time_s
            if isinstance(chunk, Frame) and not pictures:
                pictures = chunk.image().shape[0]
            if min(newest.values()) > LENGTH_S + 1:
                break
        assert pictures == 720
        assert abs(newest[Frame] - newest[Samples]) < 1.0


def test_a_film_begins_with_a_key_frame_and_its_time_only_grows(clip: Path) -> None:
    newest = {"video": -1.0, "audio": -1.0}
    for number, piece in enumerate(pieces(clip, 1.0)):
        assert number or (piece.kind, piece.key, piece.time_s) == ("video", True, 0.0)
        assert piece.decode_s > newest[piece.kind]
        newest[piece.kind] = piece.decode_s
        if piece.decode_s > 3 * LENGTH_S:
            break
