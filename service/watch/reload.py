"""Reads the site file and the bundle's names again while the service runs: all comes into force, or nothing."""

from __future__ import annotations

import logging
import queue
import threading
import time
from pathlib import Path

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import OTHER_NAMES
from ovavel.runtime.errors import InputError, OvavelError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.reporting.text import one_line
from ovavel.service.config.changes import Changes, compare
from ovavel.service.config.read import economy_of, read_site
from ovavel.service.config.site import Site
from ovavel.service.delivery.deliveries import check_labels, discard
from ovavel.service.delivery.worker import Worker
from ovavel.service.names.adopt import read_again
from ovavel.service.names.editor import Editor
from ovavel.service.store.cameras import add_camera, switched_off
from ovavel.service.watch.economy.site import check_economy
from ovavel.service.watch.service import Service, facts_of, recording_of

__all__ = ["Reloader"]

_log = logging.getLogger(__name__)

_LEAVE_S = 10.0
"""How long a camera that was removed takes to end, with the clips of its last events."""
_SINK_S = 2.0
"""How long a sink that ends may take for what is due."""


class Reloader:
    """Reads one site file for one service that runs. One at a time: whoever comes later waits."""

    def __init__(self, service: Service, path: Path) -> None:
        """Read `path` for `service`, whose site came from there."""
        self._service, self._path = service, path
        self.editor = Editor(service.bundle.path)
        """Changes the bundle's vocabulary; `read_names` brings that into force."""
        self._changing = threading.Lock()
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="ovavel-reload", daemon=True)

    def start(self) -> None:
        """Do what `ask` asks for from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Change nothing any more. Call it before the service is stopped."""
        self.editor.stop()
        with self._changing:
            self._stopped = True
        self._asked.put(False)
        if self._thread.ident is not None:
            self._thread.join()

    def ask(self) -> None:
        """Reload soon, in another thread. May be called by a handler of signals: it takes no lock."""
        self._asked.put(True)

    def check(self) -> Changes:
        """What `reload` would change.

        Raises:
            OvavelError: the file is broken, needs another start, or what it names makes no sense.
        """
        with self._changing:
            site, bundle = read_site(self._path), read_again(self._service.bundle)
            changes = self._compared(site, bundle)
            discard(self._prepared(site, changes, bundle))
            return changes

    def reload(self) -> Changes:
        """Bring the file and the bundle's names into force. What they do not change is not interrupted.

        Raises:
            OvavelError: as `check`, or the store cannot be written; the service runs as before.
        """
        with self._changing:
            if self._stopped:
                raise InputError("the service is ending")
            try:
                changes = self._apply(read_site(self._path), read_again(self._service.bundle))
            except OvavelError as error:
                self._service.rejected = one_line(redacted(str(error)))
                _log.error("the site file is not in force, the one before it stays: %s", error)
                raise
            self._service.rejected = ""
            _log.info("the site file was read again: %s", changes.text)
            return changes

    def read_names(self) -> Changes:
        """Bring the bundle's names into force, and leave the site as it is, whatever its file says by now.

        Raises:
            OvavelError: they cannot be; the service runs as before.
        """
        with self._changing:
            if self._stopped:
                raise InputError("the service is ending")
            changes = self._apply(self._service.site, read_again(self._service.bundle))
            _log.info("the bundle was read again: %s", changes.text)
            return changes

    def _run(self) -> None:
        while self._asked.get():
            try:
                self.reload()
            except OvavelError:
                pass  # it was logged
            except Exception:  # noqa: BLE001 - the service runs as before, and the next try may be better
                _log.exception("the site file could not be read again")

    def _compared(self, site: Site, bundle: Bundle) -> Changes:
        check_economy(site, bundle)
        changes = compare(self._service.site, site, self._service.bundle.vocabulary, bundle.vocabulary)
        if changes.added or changes.restarted or changes.fields:
            self._service.check_capacity(site)
        return changes

    def _prepared(self, site: Site, changes: Changes, bundle: Bundle) -> dict[str, Worker]:
        check_labels(site.sink, bundle.vocabulary.names[:-1])  # of all: names that they want may be gone
        return self._service.deliveries.prepared([each for each in site.sink if each.id in changes.opened])

    def _apply(self, site: Site, bundle: Bundle) -> Changes:
        service = self._service
        changes = self._compared(site, bundle)
        self._await_left(changes.added)
        cameras = {camera.id: camera for camera in site.camera}
        off, before = switched_off(service.store.read), service.feeds
        feeds = {
            each: before.get(each) or service.feed(site, camera, enabled=each not in off)
            for each, camera in cameras.items()
        }
        workers = self._prepared(site, changes, bundle)
        try:
            now_us = time.time_ns() // 1000
            with service.store.write() as transaction:
                for camera in site.camera:
                    add_camera(transaction, facts_of(site, camera), now_us=now_us)
        except BaseException:
            discard(workers)
            raise
        # Nothing below can fail.
        service.site = site
        service.keeper.change(site)
        service.archivist.change(site)
        service.economies.change(site)
        service.bundle = bundle
        if changes.vocabulary:
            service.decider.rename(bundle)
            calibration = bundle.manifest.calibration
            if calibration and not calibration.fits(bundle.vocabulary):
                _log.warning(OTHER_NAMES)
        service.decider.change(site.camera, site.sink)
        service.leaving |= {each: before[each] for each in changes.removed}
        service.feeds = feeds
        service.monitor.change(site, feeds)
        for each in changes.removed:
            before[each].stop(removed=True)
        for each in (*changes.added, *changes.restarted):
            service.queue.add(each, cameras[each].every_s)
        for each in changes.shown:
            feeds[each].camera = cameras[each]
        for each in changes.restarted:
            auto = economy_of(site, cameras[each]).mode == "auto"
            feeds[each].change(cameras[each], recording_of(site, cameras[each]), waveform=auto)
        for each in changes.added:
            feeds[each].start()
        service.deliveries.change(site, bundle.vocabulary.names[:-1], changes.closed, workers, _SINK_S)
        return changes

    def _await_left(self, added: tuple[str, ...]) -> None:
        """Wait until of cameras that come back nothing is left of their time before they were removed.

        Raises:
            InputError: that takes too long.
        """
        leaving, until_s = self._service.leaving, time.monotonic() + _LEAVE_S
        while waited := sorted(leaving.keys() & set(added)):
            try:
                left = self._service.left.get(timeout=max(0.0, until_s - time.monotonic()))
            except queue.Empty:
                raise InputError(
                    f"camera {waited[0]!r} was removed a moment ago and is still ending; try again in a minute"
                ) from None
            leaving[left].join(_LEAVE_S)
            del leaving[left]
