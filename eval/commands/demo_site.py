"""`ovavel demo-site`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ovavel.runtime.system.bounds import Meta

__all__ = ["DemoSite"]

_LAST_PORT = 65_535


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
