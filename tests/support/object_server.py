"""An S3 server in this process, for tests of object storage."""

from __future__ import annotations

import logging
import urllib.request
from pathlib import Path

import obstore
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

__all__ = ["SECRET", "S3Server"]

SECRET = "wJalr-not-a-key-EXAMPLE"


class S3Server:
    """Listens on a port of its own, with one bucket. What is in it outlives `stop`, until the process ends."""

    def __init__(self, bucket: str) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.bucket, self._port = bucket, 0
        self.start()
        _, self._port = self._server.get_host_and_port()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{bucket}", method="PUT")).close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def variables(self) -> dict[str, str]:
        """What leads a program to this server."""
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
        }

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def store(self, prefix: str) -> S3Store:
        options = {"access_key_id": "test", "secret_access_key": SECRET, "region": "us-east-1"}
        client = {"allow_http": True}
        return S3Store(self.bucket, prefix=prefix, endpoint=self.url, client_options=client, **options)

    def upload(self, folder: Path, prefix: str) -> None:
        """Put every file below `folder`."""
        store = self.store(prefix)
        for path in folder.rglob("*"):
            if path.is_file():
                obstore.put(store, path.relative_to(folder).as_posix(), path)
