from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.service_extra import MISSING

if TYPE_CHECKING:
    from ovavel.service.store.database import Database

# Modules of the service import these at once, so its tests cannot be collected without them; `test_extra.py` says so.
collect_ignore_glob = ["*/*"] if MISSING else []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Database]:
    """A store with one camera, "gate", and its first run, "run-1", both from time 0 on."""
    from support.service import camera_facts, run_facts

    from ovavel.service.store import cameras
    from ovavel.service.store.database import Database

    with Database.open(tmp_path / "store", ballast_bytes=0) as database:
        with database.write() as transaction:
            cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
            cameras.open_run(transaction, run_facts("run-1", "gate"))
        yield database


@pytest.fixture(scope="session", autouse=True)
def _state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this machine remembers of stores belongs to the tests alone, in their child processes, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.delenv("STATE_DIRECTORY", raising=False)
        yield
