"""A store lies on a disk of this machine, and belongs to one process."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from ovavel.runtime.errors import InputError
from ovavel.service.store.database import Database
from ovavel.service.store.disk import folder as module
from ovavel.service.store.disk.folder import check_local, lock_folder
from ovavel.service.store.disk.identity import claim, memory_of


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "fuse.rclone"])
@pytest.mark.parametrize("name", ["share", "with a space", "Überwachung", "tab\tand\\134"])
def test_a_network_file_system_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    escaped = "".join(f"\\{ord(each):03o}" if each in " \t\\" else each for each in str(tmp_path / name))
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {escaped} {kind} rw 0 0\n/dev/sdb1 {tmp_path} ext4 rw 0 0\n")
    monkeypatch.setattr(module, "_MOUNTS", mounts)
    (tmp_path / name).mkdir()
    for refuses in (claim, Database.open):
        with pytest.raises(InputError, match="choose a local disk"):
            refuses(tmp_path / name / "data")
    assert not (tmp_path / name / "data").exists(), "nothing is begun there"
    assert not memory_of(tmp_path / name / "data").exists(), "nor remembered"
    with pytest.raises(InputError, match=rf"network file system \({kind}\)"):
        check_local(tmp_path / name / "data")
    check_local(tmp_path / "beside it")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / name)
    with pytest.raises(InputError, match="network"):
        check_local(link)


def test_what_is_mounted_above_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(module, "_MOUNTS", mounts)
    mounts.write_text(f"server:/x {tmp_path} nfs rw 0 0\n/dev/sdb1 {tmp_path} ext4 rw 0 0\n")
    check_local(tmp_path)
    mounts.unlink()
    check_local(tmp_path)  # a system that does not say


LOCK = "import sys; from pathlib import Path; from ovavel.service.store.disk.folder import lock_folder; " \
    "lock_folder(Path(sys.argv[1]))"  # fmt: skip


def test_another_process_is_refused_by_whatever_path_it_comes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    lock = lock_folder(tmp_path / "data")
    assert lock >= 0
    for name in ("data", "link"):
        run = subprocess.run(
            [sys.executable, "-c", LOCK, str(tmp_path / name)], capture_output=True, text=True, timeout=60
        )
        assert "is in use by another 'ovavel serve'" in run.stderr


def test_a_file_system_without_locks_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(InputError, match=r"without locks \(No locks available\)"):
        lock_folder(tmp_path)
