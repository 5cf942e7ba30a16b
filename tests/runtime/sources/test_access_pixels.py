"""How large pictures may be; see docs/threat-model.md."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.media_factory import make_clip
from support.runtime.pictures import pictures, refused

from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.sources.access import Access, open_container
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Frame, Gap


def test_large_pictures_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", duration_s=1, fps=5)
    said = refused(clip, max_pixels=160 * 120 - 1)
    assert "160 × 120 pixels, and 19199 pixels are allowed" in said
    assert "--max-pixels" in said
    assert pictures(clip, max_pixels=160 * 120) == 5


def test_pictures_that_grow_midway_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "clip.mjpeg"
    with path.open("wb") as file:
        for side in (16, 16, 2000, 16):
            Image.new("RGB", (side, side)).save(file, "JPEG")
    chunks = list(MediaSource(path, access=Access(max_pixels=1000)).chunks())
    assert {chunk.image().shape for chunk in chunks if isinstance(chunk, Frame)} == {(16, 16, 3)}
    assert "damaged video" in {chunk.cause for chunk in chunks if isinstance(chunk, Gap)}


def test_pictures_whose_size_comes_late_are_judged_by_it(tmp_path: Path) -> None:
    """FFmpeg gives up looking for a size long before the first whole picture."""
    good = io.BytesIO()
    Image.new("RGB", (64, 48)).save(good, "JPEG")
    damaged = good.getvalue()[:2] + b"\xff\xc0" + bytes(40) + good.getvalue()[-2:]
    path = tmp_path / "clip.mjpeg"
    path.write_bytes(damaged * 300 + good.getvalue() * 50)
    with open_container(str(path), Access()) as container:
        assert container.streams.video[0].codec_context.width == 0
    chunks = list(MediaSource(path).chunks())
    assert {chunk.image().shape for chunk in chunks if isinstance(chunk, Frame)} == {(48, 64, 3)}
    assert {chunk.cause for chunk in chunks if isinstance(chunk, Gap)} == {"damaged video"}
    assert "are too large: they have 64 × 48 pixels, and 1000 pixels are allowed" in refused(path, max_pixels=1000)
    path.write_bytes(damaged * 300)
    assert "are damaged or too large" in refused(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "BMP", "TIFF", "GIF", "JPEG2000", "TGA", "PPM", "PCX"])
def test_a_picture_that_is_too_large_is_reported_as_such(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{ {'JPEG2000': 'jp2', 'JPEG': 'jpg'}.get(kind, kind.lower()) }"
    Image.new("RGB", (1200, 1100)).save(path, kind)
    said = refused(path, max_pixels=1000)
    size = "no size can be read" if kind in ("PPM", "PCX") else "1200 × 1100 pixels"
    assert "too large: " in said
    assert f"{size}, and 1000 pixels are allowed; make it smaller, or raise the limit with --max-pixels" in said
    assert pictures(path, max_pixels=1200 * 1100) == 1


HUGE = """
import sys
from pathlib import Path
from ovavel.runtime.errors import MediaError
from ovavel.runtime.sources.media.source import MediaSource
try:
    list(MediaSource(sys.argv[1]).chunks())
except MediaError as error:
    print(error)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) // 1024)  # ru_maxrss holds that of the process before exec
"""

BLANK = bytes.fromhex("524946461a000000574542505650384c0e0000002f7ffe9f0f071011fd0f4444ff03")
"""A WebP picture of 16 000 × 16 000 pixels, all the same."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_a_huge_picture_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "huge.webp").write_bytes(BLANK)
    command = [sys.executable, "-c", HUGE, str(tmp_path / "huge.webp")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    *said, peak = done.stdout.splitlines()
    assert done.stderr == ""
    assert "more than 178956970 pixels, and 67108864 pixels are allowed" in said[0]
    assert int(peak) < 500, "MiB; the picture alone takes 977"


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1e3", "99999999999"])
def test_an_invalid_limit_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVAVEL_MAX_PIXELS", limit)
    with pytest.raises(UsageError, match="OVAVEL_MAX_PIXELS"):
        Access()


def test_the_limit_of_the_environment_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVAVEL_MAX_PIXELS", "100")
    with pytest.raises(MediaError, match="100 pixels are allowed"):
        MediaSource(make_clip(tmp_path / "clip.mp4", duration_s=1, fps=5))
