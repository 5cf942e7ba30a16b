"""Fetches ImageBind's published weights: resumed after a cut, checked, and renamed only when whole."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

from rich.console import Console

from ovavel.export.published import DEFAULT_URL
from ovavel.runtime.errors import DownloadError, UsageError
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.system.bars import rated_bar
from ovavel.runtime.system.progress import Progress, no_progress

__all__ = ["LICENCE", "PUBLISHED", "Patience", "download_weights"]

LICENCE = (
    "The weights of ImageBind are published by Meta under CC BY-NC-SA 4.0 "
    "(https://creativecommons.org/licenses/by-nc-sa/4.0/): give credit, no commercial use, and share what you make of "
    "them, a bundle for example, under the same terms."
)


class _Known(NamedTuple):
    """What a file of a known address must be."""

    size: int
    sha256: str


PUBLISHED = {
    DEFAULT_URL: _Known(4_803_584_173, "d6f6c22bedcc90708448d5d2fbb7b2db9c73f505dc89bd0b2e09b23af1b62157"),
}
"""Size in bytes and SHA-256 by address."""

_BLOCK = 1 << 20
_MB = 1e6
_SPARE_BYTES = 64 << 20
_LONGEST_WAIT_S = 60.0
_RETRIED = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When to give up."""

    timeout_s: float = 30.0
    """Longest silence of the server."""
    attempts: int = 6
    """Connections in a row that bring nothing new before the download fails."""
    backoff_s: float = 1.0
    """Wait before the second of them; doubled from one to the next."""


class _Retry(Exception):  # noqa: N818 - not an error, a reason to try again
    """The connection brought no more; another may."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def download_weights(
    directory: Path,
    *,
    accept_license: bool,
    url: str = DEFAULT_URL,
    console: Console | None = None,
    patience: Patience | None = None,
) -> Path:
    """Download the weights at `url` into `directory` and return the file. A file that is there already is checked.

    Args:
        directory: made if it does not exist.
        accept_license: whether the user accepts the licence, which is shown in any case.
        url: HTTP or HTTPS address. Size and hash are checked for those in `PUBLISHED`, the size alone for others.
        console: where licence and progress go; standard error by default.
        patience: when to give up.

    Raises:
        UsageError: the licence is not accepted, or `url` is no address of a file.
        DownloadError: the file cannot be fetched or written or is not the right one; says whether to run it again.
    """
    console = console or Console(stderr=True)
    console.print(LICENCE, highlight=False)
    if not accept_license:
        raise UsageError("nothing was downloaded: if you accept this licence, run it again with --accept-license")
    target = directory / _file_name(url)
    part = target.with_name(target.name + ".part")
    server = _Server(url, patience or Patience())
    try:
        if target.exists():
            _check_present(target, server)
            console.print(
                one_line(f"{target} is there already and whole"), highlight=False, markup=False, soft_wrap=True
            )
            return target
        directory.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DownloadError(f"{part} is being written by another download; wait for it to end") from error
            try:
                with rated_bar("MB", console=console) as progress:
                    _Download(server, target, part, file).run(progress)
            finally:
                if part.exists() and not part.stat().st_size:
                    part.unlink()
    except OSError as error:
        raise DownloadError(
            f"cannot write {error.filename or part}: {error.strerror or error}; what was fetched is kept, "
            "fix that and run it again"
        ) from error
    console.print(one_line(f"wrote {target}"), highlight=False, markup=False, soft_wrap=True)
    return target


def _file_name(url: str) -> str:
    parts = urlsplit(url)
    name = unquote(parts.path).rsplit("/", 1)[-1]
    if parts.scheme not in ("http", "https") or not parts.hostname or name in ("", ".", "..") or "\0" in name:
        raise UsageError(f"{url!r} is not the HTTP address of a file; give one such as {DEFAULT_URL}")
    return name


def _check_present(target: Path, server: _Server) -> None:
    known = server.known
    try:
        size = known.size if known else server.size()
    except _Retry as cut:
        raise DownloadError(f"{target} is there, and {server.url} cannot tell whether it is whole: {cut}") from cut
    found = target.stat().st_size
    what = f"has {found} bytes and should have {size}" if found != size else ""
    if not what and known and _sha256(target) != known.sha256:
        what = "has another hash than the published file"
    if what:
        raise DownloadError(f"{target} is there but {what}; move it away and run it again")


class _Server:
    """Where the file comes from."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.url = url
        self.known = PUBLISHED.get(url)
        self.patience = patience

    def size(self) -> int:
        """Ask for the size of the file alone."""
        with self.open(0, "") as response:
            return self.size_of(response)

    def open(self, start: int, version: str) -> http.client.HTTPResponse:
        """Ask for the file from byte `start` on, of that version if it is not another by now."""
        request = urllib.request.Request(self.url, headers={"User-Agent": "ovavel", "Accept-Encoding": "identity"})
        if start:
            request.add_header("Range", f"bytes={start}-")
            if version:
                request.add_header("If-Range", version)
        try:
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=self.patience.timeout_s)
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return error  # type: ignore[return-value]  # it is a response too
            with error:
                if error.code in _RETRIED:
                    after = error.headers.get("Retry-After", "")
                    raise _Retry(
                        f"the server answered {error.code} {error.reason}", float(after) if after.isdigit() else 0.0
                    ) from error
                raise DownloadError(
                    f"{self.url}: the server answered {error.code} {error.reason}; check the address"
                ) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Retry(_reason(error)) from error
        return response

    def size_of(self, response: http.client.HTTPResponse) -> int:
        """Size of the whole file, by what the server says.

        Raises:
            DownloadError: it does not say, or the file is not of the published size.
        """
        whole = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        said = whole[1] if whole else response.headers.get("Content-Length", "")
        if not said.isdigit() or int(said) == 0:
            raise DownloadError(
                f"{self.url}: the server does not say how long the file is, so nobody could tell whether it is whole; "
                "use another address"
            )
        if self.known and int(said) != self.known.size:
            raise DownloadError(
                f"{self.url}: the server offers {said} bytes and the published file has {self.known.size}; it may be "
                "an error page or another version: try again later, or use another network"
            )
        return int(said)


class _Download:
    """One file on its way. `part` holds what has arrived, and a note beside it which version of the file it is of."""

    def __init__(self, server: _Server, target: Path, part: Path, file: BinaryIO) -> None:
        self._server = server
        self._target = target
        self._part = part
        self._file = file
        self._note = part.with_name(part.name + ".version")

    def run(self, progress: Progress) -> None:
        """Fetch, check and rename."""
        name = self._target.name
        known, url, patience = self._server.known, self._server.url, self._server.patience
        failures = 0
        most = self._have()
        while not (known and self._have() == known.size):
            try:
                self._fetch(progress)
                break
            except _Retry as cut:
                failures = 0 if self._have() > most else failures + 1
                most = max(most, self._have())
                if failures >= patience.attempts:
                    raise DownloadError(
                        f"{url} could not be fetched: {cut}. {self._have()} bytes are kept in {self._part}; "
                        "run it again to go on from there"
                    ) from cut
                wait_s = max(cut.wait_s, patience.backoff_s * 2 ** max(0, failures - 1))
                progress(name, self._have() / _MB, known.size / _MB if known else None, f"{cut}, trying again")
                time.sleep(min(wait_s, _LONGEST_WAIT_S))
        if known and _sha256(self._part, progress) != known.sha256:
            self._forget()
            raise DownloadError(
                f"what {url} sent is not the published file: its hash is another. It was removed; run it "
                "again, from another network if it goes on so"
            )
        self._part.replace(self._target)
        self._note.unlink(missing_ok=True)

    def _fetch(self, progress: Progress) -> None:
        """Take over one connection; return when the file is whole.

        Raises:
            _Retry: it ended before that.
        """
        if not self._version() and not self._server.known:
            self._forget()  # nothing would tell whether the rest is of the same version
        have = self._have()
        response = self._server.open(have, self._version())
        with response:
            if response.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if have == self._server.size_of(response):
                    return
                self._forget()
                raise _Retry("what was there does not fit the server's file")
            if response.status != http.HTTPStatus.PARTIAL_CONTENT or _first_byte(response) != have:
                # The whole file: the first connection, another version by now, or a server that ignores ranges.
                if response.status == http.HTTPStatus.PARTIAL_CONTENT:
                    self._forget()
                    raise _Retry("the server sent another part than it was asked for")
                self._forget()
                have = 0
            size = self._server.size_of(response)
            free = shutil.disk_usage(self._part.parent).free
            if free < size - have + _SPARE_BYTES:
                raise DownloadError(
                    f"{self._part.parent} has {free / 1e9:.1f} GB free, and the rest of {self._target.name} takes "
                    f"{(size - have) / 1e9:.1f} GB; free some space or choose another folder"
                )
            if not have:
                self._note.write_text(_version(response), "utf-8")
            progress(self._target.name, have / _MB, size / _MB)
            while have < size:
                try:
                    block = response.read1(min(_BLOCK, size - have))
                except (OSError, http.client.HTTPException) as error:
                    raise _Retry(_reason(error)) from error
                if not block:
                    raise _Retry("the connection was cut")
                self._file.write(block)
                self._file.flush()
                have += len(block)
                progress(self._target.name, have / _MB, size / _MB)

    def _have(self) -> int:
        return self._part.stat().st_size

    def _version(self) -> str:
        try:
            return self._note.read_text("utf-8")
        except OSError:
            return ""

    def _forget(self) -> None:
        self._file.truncate(0)
        self._note.unlink(missing_ok=True)


def _version(response: http.client.HTTPResponse) -> str:
    """Return what tells one version of the file from another in `If-Range`, or nothing where the server has nothing."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _first_byte(response: http.client.HTTPResponse) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "the server fell silent"
    return str(cause) or type(cause).__name__


def _sha256(path: Path, progress: Progress = no_progress) -> str:
    digest = hashlib.sha256()
    done, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress("checking", done / _MB, size / _MB)
    return digest.hexdigest()
