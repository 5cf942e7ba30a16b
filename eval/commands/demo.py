"""`ovavel demo` and `ovavel demo-site`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from ovavel.runtime.commands.options import Maybe
from ovavel.runtime.errors import UsageError
from ovavel.runtime.reporting.redaction import without_secrets
from ovavel.runtime.system.bounds import Meta

__all__ = ["Demo", "DemoSite"]

_OUT = Path("demo-out")
_LAST_PORT = 65_535


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Watch a small trained model localize events in a clip of its own made-up world.

    Examples:
        ovavel demo                     # 40 seconds, live; then the truth beside the reported events
        ovavel demo --fast              # the same at once
        ovavel demo --camera            # the same model on your camera and microphone

    The model and the clip come with ovavel: nothing is downloaded, and neither PyTorch nor a GPU is needed. The model
    was trained on drawn objects and synthetic sounds, on other clips than this one. It shows how ovavel works; it knows
    nothing about the real world. Results go to --out: a page with the clip, the truth and the reported events, and
    everything that 'ovavel localize' writes. --camera writes nothing.
    """

    fast: bool = False
    """Play the clip as fast as possible instead of live."""
    out: Maybe[Path] = None
    """Folder for the clip, the model and the results; demo-out by default."""
    camera: Annotated[tuple[str, ...] | None, arg(metavar="[INDEX|URL]", help_behavior_hint="")] = None
    """Use a real camera and microphone instead, the first camera by default; needs 'ovavel[live]'."""
    microphone: Annotated[str | None, arg(metavar="INDEX|NAME", help_behavior_hint="")] = None
    """With --camera: index, name or part of the name of the microphone; the default one otherwise."""

    def run(self) -> int:
        """Play the clip, or watch the camera."""
        if self.camera is None and self.microphone is not None:
            raise UsageError("--microphone goes with --camera; the clip brings its own sound")
        if self.camera is not None and (self.fast or self.out is not None):
            raise UsageError("--fast and --out are for the clip; --camera is always live and writes nothing")
        if self.camera is not None and len(self.camera) > 1:
            raise UsageError(
                f"at most one camera, not {len(self.camera)}: {', '.join(map(without_secrets, self.camera))}"
            )
        from ovavel.eval.demo.assets import Assets
        from ovavel.eval.demo.play import play_clip, watch_camera

        assets = Assets.open()
        if self.camera is not None:
            return watch_camera(assets, self.camera[0] if self.camera else "0", self.microphone or "default")
        return play_clip(assets, self.out or _OUT, fast=self.fast)


@dataclass(frozen=True, kw_only=True)
class DemoSite:
    """Run 'ovavel serve' on a virtual site: three cameras that play the demo's clip, over HTTP, RTSP and from a file.

    Examples:
        ovavel demo-site
        ovavel demo-site --port 8080 --out /tmp/site

    The model and the clip come with ovavel: nothing is downloaded, and neither PyTorch nor a camera is needed. The
    site file, for experiments with 'ovavel serve', and the store go to --out. The page is for this machine alone.
    Ctrl-C ends it; events are kept for the next time.
    """

    port: Annotated[int, Meta(ge=0, le=_LAST_PORT)] = 8470
    """Port of the page on 127.0.0.1; 0 takes one that is free."""
    out: Path = Path("watch-out")
    """Folder for the site file and the store."""

    def run(self) -> int:
        """Start the cameras, and the service until a signal arrives."""
        from ovavel.eval.demo.assets import Assets
        from ovavel.eval.demo.site import virtual_site
        from ovavel.runtime.cli import main

        with virtual_site(Assets.open(), self.out, port=self.port) as site:
            return main(["serve", str(site)])
