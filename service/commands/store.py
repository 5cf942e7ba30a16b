"""`ovavel serve backup`, `serve restore` and `serve doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

if TYPE_CHECKING:
    from ovavel.service.config.site import Site

__all__ = ["Backup", "Doctor", "Restore"]


@dataclass(frozen=True, kw_only=True)
class Backup:
    """Copy a site's store to one file, also while the service runs.

    Example:
        ovavel serve backup site.toml --out backup-2026-11-29.sqlite3

    The copy holds events, their log, accounts, users and what has still to be delivered, of one moment. Snapshots
    and clips are files in the folder `data` and are not in it.
    """

    site: Positional[Path]
    """The site file."""
    out: Path
    """The new file."""

    def run(self) -> int:
        """Copy it."""
        site = _read(self.site)
        from ovavel.service.store.care.copies import backup

        events = backup(Path(site.data), self.out)
        print(f"{self.out}: {events} events, {self.out.stat().st_size / 1e6:.1f} MB")
        return 0


@dataclass(frozen=True, kw_only=True)
class Restore:
    """Put a backup in the place of a site's store. The service must not run.

    Example:
        ovavel serve restore site.toml --backup backup-2026-11-29.sqlite3

    The store that was there is kept beside it.
    """

    site: Positional[Path]
    """The site file."""
    backup: Path
    """File that `ovavel serve backup` wrote."""

    def run(self) -> int:
        """Replace it."""
        site = _read(self.site)
        from ovavel.service.store.care.copies import restore

        aside = restore(Path(site.data), self.backup)
        print(f"{self.backup} is the store of {site.data} now" + (f"; the former one is {aside}" if aside else ""))
        return 0


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Check a site's store: the file, the event log without holes, every second accounted for, every file there.

    Example:
        ovavel serve doctor site.toml

    May run beside the service. Exit code 1 if anything is wrong. 'ovavel doctor' checks the machine, and with
    --camera one camera.
    """

    site: Positional[Path]
    """The site file."""

    def run(self) -> int:
        """Check it."""
        site = _read(self.site)
        from ovavel.service.store.care.copies import examine

        found = examine(Path(site.data))
        print(f"{site.data}: {found.events} events, {found.cameras} cameras, {found.free_bytes / 1e9:.1f} GB free")
        for wrong in found.violations:
            print(f"! {wrong}")
        if found.violations:
            print("Stop the service, keep a copy of the folder, and restore a backup: 'ovavel serve restore'.")
            return 1
        print("The store is sound.")
        return 0


def _read(path: Path) -> Site:
    from ovavel.runtime.errors import MissingExtraError
    from ovavel.service.config.read import read_site

    try:
        import apsw  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("apsw", "serve", need="The store") from error
    return read_site(path)
