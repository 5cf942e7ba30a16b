"""The HTTP server, in a thread of its own."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
from contextlib import closing

import uvicorn

from ovavel.runtime.errors import InputError
from ovavel.service.store.people import anybody
from ovavel.service.watch.reload import Reloader
from ovavel.service.watch.service import Service
from ovavel.service.web.access.guard import Guard
from ovavel.service.web.access.identify import Access
from ovavel.service.web.api import API
from ovavel.service.web.app import make_app
from ovavel.service.web.connections import Connection

__all__ = ["Server", "is_loopback"]

_STOP_S = 5.0
_STALLED_MS = 60_000


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server:
    """Serves one site until `stop`."""

    def __init__(
        self, service: Service, *, host: str, port: int, token: str | None, reloader: Reloader | None = None
    ) -> None:
        """Bind at once, so that a port in use is an error here.

        Without a `reloader`, one is made where the service has a site file.

        Raises:
            InputError: the address cannot be used, or others can reach it and nobody has to log in.
        """
        site, store = service.site, service.store
        if not token and not anybody(store.read) and (site.proxies or not is_loopback(host)):
            raise InputError(
                f"{'proxies' if is_loopback(host) else host} let others reach the page: add a user with "
                "'ovavel serve SITE --add-user NAME --role admin', or give token_file in the site file"
            )
        self.api = API(service)
        place = f"{site.name}\n{port}\n{site.base_path}\n{store.folder.resolve()}"
        access = Access(store, token, loopback=is_loopback(host) and not site.proxies, place=place)
        if reloader is None and service.file is not None:
            reloader = Reloader(service, service.file)
        self.app = make_app(service, self.api, access, reloader)
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":  # who asks and then does not read is let go
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MS)
        try:
            self._socket.bind((host, port))
            self._socket.listen(128)  # from here on nobody is refused
        except OSError as error:
            self._socket.close()
            raise InputError(
                f"cannot listen on {host}, port {port}: {error.strerror}; choose another `listen`"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            Guard(self.app, access, base_path=site.base_path),
            proxy_headers=bool(site.proxies),
            forwarded_allow_ips=list(site.proxies),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=16_384,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="ovavel-web", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End open streams, then the server."""
        self.api.stopping = True
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        with closing(self._socket):
            self._server.run(sockets=[self._socket])
