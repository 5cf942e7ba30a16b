"""When a recording began, as its file says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ovavel.runtime.errors import MediaError
from ovavel.runtime.sources.access import Access, open_container

__all__ = ["creation_time"]

_TAG = "creation_time"


def creation_time(path: Path, access: Access | None = None) -> datetime | None:
    """Return the `creation_time` of a media file or of its first stream that has one; None if there is none.

    Cameras and phones write it; most give the beginning of the recording, in UTC.

    Raises:
        MediaError: it cannot be read.
    """
    from av.error import FFmpegError

    try:
        with open_container(str(path), access or Access()) as container:
            noted = [container.metadata.get(_TAG), *(stream.metadata.get(_TAG) for stream in container.streams)]
    except (FFmpegError, OSError) as error:
        raise MediaError(f"{path} cannot be read ({error}); check the file") from error
    for text in filter(None, noted):
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            continue
        if found.year > 1970:  # a camera whose clock was never set
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None
