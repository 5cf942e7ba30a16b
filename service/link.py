"""Messages between the service and its children: typed values over a socket pair. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["Array", "Child", "Link", "LinkClosed"]

T = TypeVar("T")

_LARGEST = 256 << 20
_HEADER = struct.Struct(">I")
_STOP_S = 2.0
_TAKEN_S = 15.0
"""A child that takes nothing for so long, or for twice as long once it took a part, hangs: what does not fit into the
buffer of its socket waits for it."""
_TIMEVAL = struct.Struct("ll")


class LinkClosed(Exception):  # noqa: N818 - the usual end of a link, caught by both sides
    """The other side is gone, silent for too long, or does not speak this protocol."""


class Array(Struct, frozen=True, array_like=True):
    """A float32 array."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Array:
        """Copy `values`."""
        return cls(values.shape, np.ascontiguousarray(values, np.float32).tobytes())

    @property
    def values(self) -> NDArray[np.float32]:
        """The array, read-only.

        Raises:
            LinkClosed: its shape does not fit its data.
        """
        try:
            return np.frombuffer(self.data, np.float32).reshape(self.shape)
        except ValueError as error:
            raise LinkClosed(f"an array of shape {self.shape} came with {len(self.data)} bytes") from error


class Link:
    """One end of a connection. `send` may be called from several threads, `receive` from one."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()

    def send(self, message: Struct) -> None:
        """Send one message; waits while the other side does not read.

        Raises:
            LinkClosed: the other side is gone, or is a child that has taken nothing for too long.
        """
        data = msgspec.msgpack.encode(message)
        try:
            with self._sending:
                self._socket.sendall(_HEADER.pack(len(data)))
                self._socket.sendall(data)
        except BlockingIOError as error:
            raise LinkClosed(f"nothing was taken for {_TAKEN_S:g} s") from error
        except OSError as error:
            raise LinkClosed(str(error)) from error

    def receive(self, kind: type[T] | Any, *, timeout_s: float | None = None) -> T:
        """Wait for the next message, which must be of `kind`.

        Raises:
            LinkClosed: the other side is gone, has sent nothing for `timeout_s`, or sent something else.
        """
        try:
            self._socket.settimeout(timeout_s)
            (size,) = _HEADER.unpack(self._exactly(_HEADER.size))
            if size > _LARGEST:
                raise LinkClosed(f"a message of {size} bytes was announced")
            message: T = msgspec.msgpack.decode(self._exactly(size), type=kind)
        except TimeoutError as error:
            raise LinkClosed(f"nothing came for {timeout_s:g} s") from error
        except (OSError, msgspec.DecodeError) as error:
            raise LinkClosed(str(error)) from error
        finally:
            self._unlimited()
        return message

    def _unlimited(self) -> None:
        with contextlib.suppress(OSError):  # closed by another thread meanwhile
            self._socket.settimeout(None)

    def _exactly(self, size: int) -> bytes:
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            count = self._socket.recv_into(view[done:])
            if not count:
                raise LinkClosed("the other side is gone")
            done += count
        return bytes(data)

    def close(self) -> None:
        """Close it; a `receive` in another thread ends with LinkClosed."""
        with contextlib.suppress(OSError):  # the other side was first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Child:
    """A child process of the service and the link to it."""

    def __init__(self, module: str) -> None:
        """Start `python -m module FD`, which calls `Child.link` first.

        Raises:
            LinkClosed: the machine has no descriptors, memory or processes left.
        """
        with contextlib.ExitStack() as opened:
            try:
                ours, theirs = map(opened.enter_context, socket.socketpair())
                self.process = subprocess.Popen(
                    [sys.executable, "-m", module, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    # A Ctrl-C of the terminal is for the service, which ends its children itself.
                    start_new_session=True,
                )
            except OSError as error:
                raise LinkClosed(f"no process can be started now: {error.strerror or error}") from error
            opened.pop_all()
            theirs.close()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(_TAKEN_S), 0))
        self.link = Link(ours)

    @staticmethod
    def inherited(descriptor: str) -> Link:
        """The child's end of the link, from its command line."""
        return Link(socket.socket(fileno=int(descriptor)))

    def stop(self, within_s: float = _STOP_S) -> int:
        """Close the link, on which the child ends, and kill it if it does not; returns its exit code."""
        self.link.close()
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
