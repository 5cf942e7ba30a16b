"""`ovavel serve`."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from ovavel.runtime.commands.options import Maybe

if TYPE_CHECKING:
    from queue import SimpleQueue

    from ovavel.service.config.site import Site
    from ovavel.service.watch.reload import Reloader
    from ovavel.service.watch.service import Service
    from ovavel.service.web.server import Server

__all__ = ["Serve"]


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Watch the cameras of a site, keep what was both seen and heard, and show it on a page.

    Examples:
        ovavel serve site.toml
        ovavel serve site.toml --check
        ovavel serve --schema > site.schema.json
        ovavel serve site.toml --test-message phone
        ovavel serve site.toml --add-user anna --role admin

    A site file names a bundle, a folder for the store and the cameras; docs/service.md has an example.

    SIGTERM or Ctrl-C ends it: open events are ended and kept. SIGHUP reads the site file and the names of the bundle
    again.
    """

    site: Positional[Maybe[Path]] = None
    """The site file, in TOML."""
    check: bool = False
    """Check the site file, without opening the bundle or a camera, and end."""
    schema: bool = False
    """Print the JSON schema of site files, and end."""
    test_message: Maybe[str] = None
    """Send a test message to the sink of this name, also while the service runs, and end."""

    add_user: Maybe[str] = None
    """Add a user of the page, or set role and password of one, and end. The password is the first line of input."""
    remove_user: Maybe[str] = None
    """Remove a user, and end."""
    add_token: Maybe[str] = None
    """Add a token of this name for a program, print it, and end."""
    remove_token: Maybe[str] = None
    """Remove a token by its name, and end."""
    role: Literal["view", "operate", "admin"] = "view"
    """With --add-user and --add-token: look, also review events, or also change who may do what."""

    def run(self) -> int:
        """Watch until a signal arrives."""
        from ovavel.runtime.errors import UsageError
        from ovavel.service.config.read import read_site, remarks, site_schema

        if self.schema:
            print(site_schema().decode(), end="")
            return 0
        if self.site is None:
            raise UsageError("which site? Give its file: ovavel serve site.toml")
        site = read_site(self.site)
        for remark in remarks(site):
            print(f"{self.site}: {remark}", file=sys.stderr)
        if self.check:
            print(f"{self.site}: {_cameras(site)}, well-formed; the bundle and the cameras were not opened")
            return 0
        if self.test_message is not None:
            return _test(site, self.test_message)
        return 0 if self._change_people(site) else _serve(site, self.site)

    def _change_people(self, site: Site) -> bool:
        """Add and remove users and tokens; whether there were any to add or remove."""
        from ovavel.runtime.errors import MissingExtraError

        given = [(name, getattr(self, name)) for name in ("add_user", "remove_user", "add_token", "remove_token")]
        wanted = [(name, value) for name, value in given if value is not None]
        if not wanted:
            return False
        try:
            from ovavel.service.commands import people
        except ImportError as error:
            raise MissingExtraError(error.name or "argon2", "serve", need="The monitoring service") from error
        for name, value in wanted:
            more = (self.role,) if name.startswith("add") else ()
            getattr(people, name)(site, value, *more)
        return True


HUNG_S = 120.0
"""After this long without a turn the deciding thread hangs: an encoder that is lost has been replaced by then."""


def _cameras(site: Site) -> str:
    return f"{len(site.camera)} camera{'' if len(site.camera) == 1 else 's'}"


def _test(site: Site, sink: str) -> int:
    from ovavel.runtime.errors import MissingExtraError

    try:
        from ovavel.service.commands.message import send_test
    except ImportError as error:
        raise MissingExtraError(error.name or "apsw", "serve", need="The monitoring service") from error
    send_test(site, sink)
    return 0


def _serve(site: Site, file: Path) -> int:
    import signal
    from queue import SimpleQueue

    from ovavel.runtime.errors import MissingExtraError, OutputError

    try:
        from ovavel.service.commands.limits import raise_open_files
        from ovavel.service.commands.logs import set_up_logs
        from ovavel.service.config.read import read_token, split_listen
        from ovavel.service.watch.reload import Reloader
        from ovavel.service.watch.service import Service
        from ovavel.service.web.server import Server
    except ImportError as error:
        raise MissingExtraError(error.name or "starlette", "serve", need="The monitoring service") from error

    set_up_logs(site.log)
    raise_open_files()
    stop: SimpleQueue[None] = SimpleQueue()
    host, port = split_listen(site)
    token = read_token(site)
    signals = (signal.SIGTERM, signal.SIGINT)
    try:
        with Service(site, file=file) as service:
            for each in signals:
                signal.signal(each, lambda *_: stop.put(None))
            reloader = Reloader(service, file)
            signal.signal(signal.SIGHUP, lambda *_: reloader.ask())
            server = Server(service, host=host, port=port, token=token, reloader=reloader)
            _watch(service, server, reloader, stop)
    finally:
        # Another one must not cut short what the first one began: the process is about to end.
        for each in (*signals, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
    if service.failure is not None:
        raise OutputError(f"the service ended because deciding failed: {service.failure}") from service.failure
    return 0


def _watch(service: Service, server: Server, reloader: Reloader, stop: SimpleQueue[None]) -> None:
    """Run until something is put into `stop`, which a signal may do at any time, unlike an Event; or it fails."""
    import queue

    from ovavel.service.commands.supervisor import report, watchdog_s
    from ovavel.service.config.read import split_listen

    cameras, host = _cameras(service.site), split_listen(service.site)[0]
    try:
        if service.identity.forgotten:
            print(service.identity.forgotten, file=sys.stderr)
        if service.recovered.runs:
            print(f"ended what an earlier run left open: {service.recovered.events} events", flush=True)
        service.start()
        reloader.start()
        server.start()
        print(f"watching {cameras}: http://{host}:{server.port}/", flush=True)
        report("READY=1", f"STATUS=watching {cameras}, port {server.port}")
        while service.failure is None:
            with contextlib.suppress(queue.Empty):
                stop.get(timeout=min(1.0, (watchdog_s() or 2.0) / 2))
                break
            if watchdog_s() and service.idle_s < HUNG_S:
                report("WATCHDOG=1")
    finally:
        report("STOPPING=1")
        reloader.editor.stop()  # a request that waits for it would hold the server up
        server.stop()
        reloader.stop()
