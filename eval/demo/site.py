"""A virtual site: the demo's clip as three cameras, for `ovavel serve`.

The service is run by its command, found by name: nothing here imports it, and it imports nothing from here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from ovavel.eval.demo.assets import Assets, copy_bundle
from ovavel.eval.demo.cameras.http import HTTPCamera
from ovavel.eval.demo.cameras.rtsp import RTSPCamera
from ovavel.runtime.system.files import atomic_write, make_folder, output_error

__all__ = ["STARTS_S", "virtual_site"]

STARTS_S = (29.0, 6.9)
"""Where in the clip the cameras over HTTP and RTSP begin: with an event, each another one."""


@contextmanager
def virtual_site(assets: Assets, out: Path, *, port: int) -> Iterator[Path]:
    """Start the cameras, and write `out/site.toml`, which names them, bundle and store in `out`, and a page on `port`.

    Raises:
        OutputError: `out` cannot be written.
    """
    with ExitStack() as opened:
        yard = opened.enter_context(closing(HTTPCamera(assets.clip, STARTS_S[0])))
        gate = opened.enter_context(closing(RTSPCamera(assets.clip, STARTS_S[1])))
        cameras = (("yard", "Yard (HTTP)", yard.url), ("gate", "Gate (RTSP)", gate.url))
        lines = [
            "# Written by 'ovavel demo-site' at each start; the addresses of the cameras change.",
            'bundle = "bundle"',
            'data = "store"',
            'name = "demo"',
            f'listen = "127.0.0.1:{port}"',
            *(_camera(camera, name, url) for camera, name, url in cameras),
            _camera("hall", "Hall (file)", str(assets.clip.resolve()), "loop = true"),
        ]
        make_folder(out)
        path = out / "site.toml"
        try:
            copy_bundle(assets.bundle, out / "bundle")  # names are added to it on the page
            atomic_write(path, "\n".join((*lines, "")).encode())
        except OSError as error:
            raise output_error(path, error) from error
        yield path


def _camera(camera: str, name: str, source: str, *more: str) -> str:
    lines = ("[[camera]]", f'id = "{camera}"', f"name = {_quoted(name)}", f"source = {_quoted(source)}", *more)
    return "\n".join(("", *lines))


def _quoted(text: str) -> str:
    """A basic string of TOML, which escapes as JSON does."""
    return json.dumps(text)
