"""Download of ImageBind's published weights: resumable, verified, and renamed only when complete."""

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

__all__ = ["PUBLISHED", "RetryPolicy", "download_weights"]

LICENCE = (
    "The weights of ImageBind are published by Meta under CC BY-NC-SA 4.0 "
    "(https://creativecommons.org/licenses/by-nc-sa/4.0/): give credit, no commercial use, and share derived works, "
    "such as a bundle, under the same terms."
)


class _Known(NamedTuple):
    """Expected size and hash of a published file."""

    size: int
    sha256: str


PUBLISHED = {
    DEFAULT_URL: _Known(4_803_584_173, "d6f6c22bedcc90708448d5d2fbb7b2db9c73f505dc89bd0b2e09b23af1b62157"),
}
"""Size in bytes and SHA-256 by address."""

_BLOCK = 1 << 20
_MB = 1e6
_SPARE_BYTES = 64 << 20
_MAX_WAIT_S = 60.0
_RETRIED = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Limits after which a download fails."""

    timeout_s: float = 30.0
    """Maximum time without data from the server."""
    attempts: int = 6
    """Consecutive connections without progress before the download fails."""
    backoff_s: float = 1.0
    """Wait before the second of them; doubled each time."""


class _Retry(Exception):  # noqa: N818 - not an error, but a reason to try again
    """The connection ended early; another may succeed."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def download_weights(
    directory: Path,
    *,
    accept_license: bool,
    url: str = DEFAULT_URL,
    console: Console | None = None,
    retries: RetryPolicy | None = None,
) -> Path:
    """Download the weights at `url` into `directory` and return the file. An existing file is verified instead.

    Args:
        directory: created if it does not exist.
        accept_license: whether the user accepts the licence, which is shown in any case.
        url: HTTP or HTTPS address. Size and hash are verified for those in `PUBLISHED`, only the size for others.
        console: output for licence and progress; standard error by default.
        retries: when to give up.

    Raises:
        UsageError: the licence is not accepted, or `url` is not the address of a file.
        DownloadError: the file cannot be fetched or written, or is not the expected one; the message says whether to
            retry.
    """
    console = console or Console(stderr=True)
    console.print(LICENCE, highlight=False)
    if not accept_license:
        raise UsageError("nothing was downloaded; to accept the licence, run the command again with --accept-license")
    target = directory / _file_name(url)
    part = target.with_name(target.name + ".part")
    server = _Server(url, retries or RetryPolicy())
    try:
        if target.exists():
            _check_present(target, server)
            console.print(
                one_line(f"{target} already exists and is complete"), highlight=False, markup=False, soft_wrap=True
            )
            return target
        directory.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DownloadError(f"{part} is being written by another download; wait for it to finish") from error
            try:
                with rated_bar("MB", console=console) as progress:
                    _Download(server, target, part, file).run(progress)
            finally:
                if part.exists() and not part.stat().st_size:
                    part.unlink()
    except OSError as error:
        raise DownloadError(
            f"cannot write {error.filename or part}: {error.strerror or error}; the downloaded part is kept: fix the "
            "problem and run the command again to resume"
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
        raise DownloadError(f"{target} exists, but its size cannot be checked at {server.url}: {cut}") from cut
    found = target.stat().st_size
    problem = f"has {found} bytes and should have {size}" if found != size else ""
    if not problem and known and _sha256(target) != known.sha256:
        problem = "has a different hash from the published file"
    if problem:
        raise DownloadError(f"{target} exists but {problem}; move it away and run the command again")


class _Server:
    """Server of the file."""

    def __init__(self, url: str, retries: RetryPolicy) -> None:
        self.url = url
        self.known = PUBLISHED.get(url)
        self.retries = retries

    def size(self) -> int:
        """Request only the size of the file."""
        with self.open(0, "") as response:
            return self.size_of(response)

    def open(self, start: int, version: str) -> http.client.HTTPResponse:
        """Request the file from byte `start` on, if it still has that version."""
        request = urllib.request.Request(self.url, headers={"User-Agent": "ovavel", "Accept-Encoding": "identity"})
        if start:
            request.add_header("Range", f"bytes={start}-")
            if version:
                request.add_header("If-Range", version)
        try:
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=self.retries.timeout_s)
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
        """Return the size of the whole file from the response headers.

        Raises:
            DownloadError: the size is missing, or differs from the published one.
        """
        whole = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        size = whole[1] if whole else response.headers.get("Content-Length", "")
        if not size.isdigit() or int(size) == 0:
            raise DownloadError(
                f"{self.url}: the server does not report the size of the file, so its completeness cannot be checked; "
                "use another address"
            )
        if self.known and int(size) != self.known.size:
            raise DownloadError(
                f"{self.url}: the server offers {size} bytes and the published file has {self.known.size}; it may be "
                "an error page or another version: try again later, or use another network"
            )
        return int(size)


class _Download:
    """A download in progress. `part` holds the data so far; the file next to it records the version."""

    def __init__(self, server: _Server, target: Path, part: Path, file: BinaryIO) -> None:
        self._server = server
        self._target = target
        self._part = part
        self._file = file
        self._version_file = part.with_name(part.name + ".version")

    def run(self, progress: Progress) -> None:
        """Download, verify and rename the file."""
        name = self._target.name
        known, url, retries = self._server.known, self._server.url, self._server.retries
        failures = 0
        furthest = self._have()
        while not (known and self._have() == known.size):
            try:
                self._fetch(progress)
                break
            except _Retry as cut:
                failures = 0 if self._have() > furthest else failures + 1
                furthest = max(furthest, self._have())
                if failures >= retries.attempts:
                    raise DownloadError(
                        f"{url} could not be fetched: {cut}. {self._have()} bytes are kept in {self._part}; "
                        "run the command again to resume"
                    ) from cut
                wait_s = max(cut.wait_s, retries.backoff_s * 2 ** max(0, failures - 1))
                progress(name, self._have() / _MB, known.size / _MB if known else None, f"{cut}, trying again")
                time.sleep(min(wait_s, _MAX_WAIT_S))
        if known and _sha256(self._part, progress) != known.sha256:
            self._discard()
            raise DownloadError(
                f"what {url} sent is not the published file: its hash is another. It was removed; run it "
                "again, from another network if it keeps failing"
            )
        self._part.replace(self._target)
        self._version_file.unlink(missing_ok=True)

    def _fetch(self, progress: Progress) -> None:
        """Take over one connection; return when the file is whole.

        Raises:
            _Retry: the connection ended early.
        """
        if not self._version() and not self._server.known:
            self._discard()  # without a version the rest may belong to another file
        have = self._have()
        response = self._server.open(have, self._version())
        with response:
            if response.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if have == self._server.size_of(response):
                    return
                self._discard()
                raise _Retry("the existing part does not match the server's file")
            if response.status != http.HTTPStatus.PARTIAL_CONTENT or _first_byte(response) != have:
                # The whole file: the first connection, a new version, or a server that ignores ranges.
                if response.status == http.HTTPStatus.PARTIAL_CONTENT:
                    self._discard()
                    raise _Retry("the server sent a different part than requested")
                self._discard()
                have = 0
            size = self._server.size_of(response)
            free = shutil.disk_usage(self._part.parent).free
            if free < size - have + _SPARE_BYTES:
                raise DownloadError(
                    f"{self._part.parent} has {free / 1e9:.1f} GB free, and the rest of {self._target.name} needs "
                    f"{(size - have) / 1e9:.1f} GB; free some space or choose another folder"
                )
            if not have:
                self._version_file.write_text(_version(response), "utf-8")
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
            return self._version_file.read_text("utf-8")
        except OSError:
            return ""

    def _discard(self) -> None:
        self._file.truncate(0)
        self._version_file.unlink(missing_ok=True)


def _version(response: http.client.HTTPResponse) -> str:
    """Return a validator of the file's version for `If-Range`; empty if the server has none."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _first_byte(response: http.client.HTTPResponse) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "the server stopped responding"
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
