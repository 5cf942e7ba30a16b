"""Recordings and results in object storage (S3, Google Cloud Storage, Azure), through obstore, which retries.

Credentials come from the environment, as obstore's stores read them. Putting an object is atomic: nobody sees half of
one, and there is nothing to rename.
"""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar
from urllib.parse import urlsplit

from ovavel.runtime.errors import InputError, MissingExtraError, StorageError, UsageError
from ovavel.runtime.reporting.redaction import redacted, without_secrets
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.scale.job import Recording
from ovavel.runtime.scale.places import ASIDE, STALE_S, Folder, Place

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore, RetryConfig

__all__ = ["ObjectPlace", "check_url", "object_store", "open_place", "plain_errors", "recordings_at", "wait_for"]

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")
RETRIES: RetryConfig | None = None
"""None: as obstore does by default, 10 times within 3 minutes."""
_LONGEST_KEY = 1024
"""Bytes of an object's name, with what is before it."""
_PAGE = 1000
_READERS = 16
"""Records that are read at once."""
_LONGEST_REASON = 300
_NO_BUCKET = re.compile("<Code>(NoSuchBucket|ContainerNotFound)<")

P = ParamSpec("P")
T = TypeVar("T")


def wait_for(function: Callable[P, T], *values: P.args, **options: P.kwargs) -> T:
    """The result of a function of obstore, which looks at no signal while it tries again: here Ctrl-C ends the wait.

    What it was at then ends with the process.
    """
    if threading.current_thread() is not threading.main_thread():
        return function(*values, **options)
    result: Future[T] = Future()

    def call() -> None:
        try:
            result.set_result(function(*values, **options))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            result.set_exception(error)

    threading.Thread(target=call, name="ovavel-storage", daemon=True).start()
    return result.result()


def check_url(url: str) -> None:
    """Refuse what is not the URL of a place in object storage, before anything is begun.

    Raises:
        UsageError: it is another address, or has a login in it.
        MissingExtraError: obstore is not installed.
    """
    shown = without_secrets(url)
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise UsageError(
            f"{shown} is neither a path nor object storage; give a folder, or s3://BUCKET/PREFIX, gs:// or az://"
        )
    container = parts.scheme.startswith("abfs") and ":" not in parts.netloc  # abfs://CONTAINER@ACCOUNT
    if parts.query or parts.fragment or ("@" in parts.netloc and not container):
        raise UsageError(
            f"{shown}: leave the login and what follows ? and # out of it; credentials come from variables such as "
            "AWS_ACCESS_KEY_ID, and in a name these characters are %3F and %23"
        )
    if find_spec("obstore") is None:
        raise MissingExtraError("obstore", "objects", need=f"{parts.scheme}://")


@cache
def object_store(url: str) -> ObjectStore:
    """What lies below `url`. A process has one connection to each.

    Raises:
        UsageError, MissingExtraError: see `check_url`.
        StorageError: it lacks something, such as an account.
    """
    check_url(url)
    from obstore.store import from_url

    with plain_errors(f"cannot use {url}"):
        return from_url(url, retry_config=RETRIES)


def open_place(where: Path | str) -> Place:
    """The place at a path, or at a URL, which has "://" in it. Nothing need be there.

    Raises:
        UsageError, MissingExtraError, StorageError: see `object_store`.
    """
    return ObjectPlace(where) if isinstance(where, str) and "://" in where else Folder(Path(where))


@contextlib.contextmanager
def plain_errors(failed: str) -> Iterator[None]:
    """Raise StorageError for what obstore raises, as in "cannot read s3://…: access denied".

    FileNotFoundError comes through where an object is missing, obstore's AlreadyExistsError where there is one already,
    and its PreconditionError where it is another one by now.
    """
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except FileNotFoundError as error:
        if _NO_BUCKET.search(str(error)):
            raise StorageError(f"{failed}: {_reason(error)}") from error
        raise
    except (BaseError, NotImplementedError, OSError, ValueError) as error:
        raise StorageError(f"{failed}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why, in few words, and what to do; what a server says may quote keys, so only its code and message are taken."""
    said = str(error).partition("\n\nDebug source")[0]
    if _NO_BUCKET.search(said):
        return "there is no such bucket; check the URL"
    if "169.254.169.254" in said or "metadata.google.internal" in said:
        return "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or those of your provider"
    found = [re.search(f"<{part}>(.*?)</{part}>", said, re.DOTALL) for part in ("Code", "Message")]
    texts = [each[1] for each in found if each]
    reason = one_line(redacted(": ".join(texts) or said.rpartition(" - ")[2]))[:_LONGEST_REASON].rstrip(".")
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        return f"access denied ({reason}); check the credentials in the environment"
    if "scheme is not allowed" in said or "builder error" in said:
        return f"{reason}; for http:// set AWS_ALLOW_HTTP=true"
    return f"{reason}; check the network, and the variables for this storage"


def recordings_at(url: str, suffixes: Collection[str]) -> tuple[list[Recording], Counter[str]]:
    """The recordings below `url`, by name: all with one of `suffixes`, in lower case; and what was skipped, by cause.

    Raises:
        UsageError, MissingExtraError, StorageError: see `check_url`; it cannot be listed.
    """
    found, skipped = [], Counter[str]()
    for name in ObjectPlace(url).names(""):
        parts = PurePosixPath(name)
        if parts.suffix.lower() not in suffixes:
            continue
        if any(part.startswith(".") for part in parts.parts):
            skipped["hidden"] += 1
        else:
            found.append(Recording(file=name, path=name, name=name, store=url))
    return sorted(found, key=lambda each: each.name), skipped


class ObjectPlace:
    """A `Place` in object storage: everything below one prefix of a bucket."""

    def __init__(self, url: str) -> None:
        """Use what lies below `url`, without connecting to it. Raises UsageError, MissingExtraError, StorageError."""
        self._store = object_store(url)
        self._url = url.rstrip("/")
        self._before = len(f"{getattr(self._store, 'prefix', None) or ''}/".encode())

    def prepare(self) -> None:  # noqa: D102 - see Place
        old = datetime.now(UTC) - timedelta(seconds=STALE_S)
        for each in self._listed(ASIDE):
            if each["last_modified"] < old:
                self.remove(each["path"])

    def shown(self, name: str) -> str:  # noqa: D102
        return f"{self._url}/{name}".rstrip("/")

    def refuses(self, name: str) -> str:  # noqa: D102
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            return "is not UTF-8"
        if re.search(r"[\x00-\x1f\x7f]", name):
            return "has control characters"
        return f"is too long ({size} bytes)" if self._before + size > _LONGEST_KEY else ""

    def read(self, name: str) -> bytes | None:  # noqa: D102
        import obstore

        try:
            with plain_errors(f"cannot read {self.shown(name)}"):
                return bytes(wait_for(lambda: obstore.get(self._store, name).bytes()))
        except FileNotFoundError:
            return None

    def read_each(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:  # noqa: D102
        rest = iter(names)
        while page := list(islice(rest, _PAGE)):
            yield from zip(page, wait_for(asyncio.run, self._read_page(page)), strict=True)

    def write(self, name: str, data: bytes) -> None:  # noqa: D102
        self._put(name, data, "overwrite")

    def record(self, name: str, data: bytes) -> None:  # noqa: D102
        if not self._create(name, data) and self.read(name) != data:
            raise InputError(f"another process has recorded other results in {self.shown(name)}")

    def mark(self, name: str) -> bool:  # noqa: D102
        return self._create(name, b"")

    def remove(self, name: str) -> None:  # noqa: D102
        import obstore

        with contextlib.suppress(StorageError, FileNotFoundError), plain_errors(""):
            wait_for(obstore.delete, self._store, name)

    def names(self, below: str, *suffixes: str) -> Iterator[str]:  # noqa: D102
        for each in self._listed(below):
            if not suffixes or each["path"].endswith(suffixes):
                yield each["path"]

    def _listed(self, below: str) -> Iterator[ObjectMeta]:
        import obstore

        with plain_errors(f"cannot list {self.shown(below)}"):
            pages = obstore.list(self._store, below or None, chunk_size=_PAGE)
            while (page := wait_for(next, pages, None)) is not None:
                yield from page

    async def _read_page(self, names: Iterable[str]) -> list[bytes | None]:
        import obstore

        free = asyncio.Semaphore(_READERS)

        async def read(name: str) -> bytes | None:
            async with free:
                try:
                    with plain_errors(f"cannot read {self.shown(name)}"):
                        return bytes(await (await obstore.get_async(self._store, name)).bytes_async())
                except FileNotFoundError:
                    return None

        return await asyncio.gather(*map(read, names))

    def _create(self, name: str, data: bytes) -> bool:
        """Put it unless there is one, in one step; return whether it was put."""
        from obstore.exceptions import AlreadyExistsError

        try:
            self._put(name, data, "create")
        except AlreadyExistsError:
            return False
        return True

    def _put(self, name: str, data: bytes, mode: Literal["create", "overwrite"]) -> None:
        import obstore

        kind = {"Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream"}
        failed = f"cannot write {self.shown(name)}"
        try:
            with plain_errors(failed):
                wait_for(obstore.put, self._store, name, data, mode=mode, attributes=kind, use_multipart=False)
        except FileNotFoundError as error:  # as some servers say that there is no bucket
            raise StorageError(f"{failed}: {_reason(error)}") from error
