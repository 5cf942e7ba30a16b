"""Every error that ovavel raises on purpose.

One tree, so that `except OvavelError` catches what a user can fix::

    OvavelError
    ├── UsageError            an invalid option, name or value
    │   └── VocabularyError   a class name that cannot be used
    ├── InputError            a file or folder given to a command that is missing, unreadable or of another kind
    ├── MissingExtraError     a library of an optional extra is not installed
    ├── MediaError            a file or stream that cannot be read
    ├── DatasetError          annotations or a feature cache that are missing, damaged or do not match
    ├── DeviceError           a camera, microphone, GPU or provider that is unavailable
    ├── BundleError           a bundle that is incomplete, altered or of another version
    │   └── UnverifiedError   an engine that has not been verified against PyTorch
    ├── EngineError           a TensorRT engine that cannot be built, or is damaged or does not match
    ├── CheckpointError       weights that are damaged or do not match
    ├── ExportError           an export that missed its tolerance or could not be written
    │   └── PrecisionError    a precision in which these weights lose too much
    ├── DownloadError         weights that could not be fetched
    ├── ClusterError          a Ray cluster that cannot be reached, or has nothing to run on
    ├── EndpointError         a model behind a network address that does not answer, or cannot see and hear
    ├── StorageError          object storage that cannot be reached, refuses, or has no such bucket
    └── OutputError           results that could not be written

Each message says what was wrong, where, and what to do about it. The exit code is 2 for a command line that is invalid
whatever the machine and its files, and 1 for everything else (docs/exit-codes.md).

`UsageError` is for a value that a user can cause: on the command line, in a file, or as an argument of a documented
function. `ValueError` is for an argument that only a mistake in the calling code can cause, such as arrays that do not
fit together; no value that a user gives may reach one.
"""

from __future__ import annotations

from ovavel.runtime.install import install_command

__all__ = [
    "BundleError",
    "CheckpointError",
    "ClusterError",
    "DatasetError",
    "DeviceError",
    "DownloadError",
    "EndpointError",
    "EngineError",
    "ExportError",
    "InputError",
    "MediaError",
    "MissingExtraError",
    "OutputError",
    "OvavelError",
    "PrecisionError",
    "StorageError",
    "UnverifiedError",
    "UsageError",
    "VocabularyError",
]


class OvavelError(Exception):
    """Base of all errors that ovavel raises on purpose.

    The command line prints the message alone and exits with `exit_code`.
    """

    exit_code: int = 1


class UsageError(OvavelError):
    """An invalid option, name or value."""

    exit_code = 2


class VocabularyError(UsageError):
    """A class name that cannot be used: empty, duplicate, too long, or the background."""


class InputError(OvavelError):
    """A file or folder given to a command that is missing, unreadable, damaged or of another kind."""


class MissingExtraError(OvavelError):
    """A library that belongs to an optional extra is not installed."""

    def __init__(self, library: str, extra: str, *, need: str) -> None:
        """`need` needs `library`, which is missing; the message names the command that installs `extra`."""
        super().__init__(f"{need} needs {library}, which is not installed. Install it with: {install_command(extra)}")
        self.library = library
        self.extra = extra


class MediaError(OvavelError):
    """A file or stream that cannot be read."""


class DatasetError(OvavelError):
    """Annotations or a feature cache that are missing, damaged, or do not match the request."""


class DeviceError(OvavelError):
    """A camera, microphone, GPU or execution provider that is unavailable."""


class BundleError(OvavelError):
    """A bundle that is incomplete, altered, or of a version this ovavel does not know."""


class UnverifiedError(BundleError):
    """An engine that has not been verified against PyTorch, or that disagrees with it."""


class EngineError(OvavelError):
    """A TensorRT engine that cannot be built, is damaged, or is for another GPU, version or precision."""


class CheckpointError(OvavelError):
    """A checkpoint that is damaged or does not match."""


class ExportError(OvavelError):
    """An export that missed its tolerance or could not be written."""


class PrecisionError(ExportError):
    """A precision in which these weights lose too much."""

    def __init__(self, loss: str, precision: str, *, advice: str) -> None:
        super().__init__(f"{loss}; nothing was written. {advice}")
        self.loss = loss
        """What is lost, without advice: for callers that have another precision to try."""
        self.precision = precision
        """The precision that loses too much."""


class DownloadError(OvavelError):
    """Weights that could not be fetched."""


class ClusterError(OvavelError):
    """A Ray cluster that cannot be reached, was lost, or has no machine that can run the work."""


class EndpointError(OvavelError):
    """A model behind a network address that does not answer, refuses, or cannot see and hear."""


class StorageError(OvavelError):
    """Object storage that cannot be reached, refuses, or has no such bucket."""


class OutputError(OvavelError):
    """Results that could not be written."""
