"""A camera's capture process, seen from the service."""

from __future__ import annotations

import errno
import os
import queue
import subprocess
from contextlib import closing
from typing import Any

import pytest
from support.http_station import JpegCamera
from support.service import CLIP, DEMO, until

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.service.capture.feed import CameraFeed, CameraState, Delivery, Ended
from ovavel.service.capture.messages import Opened
from ovavel.service.config.site import Camera


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cause", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM])
def test_a_machine_that_can_start_no_process_now_is_asked_again(monkeypatch: pytest.MonkeyPatch, cause: int) -> None:
    news: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
    camera, encoders = Camera(id="gate", source=CLIP, loop=True), Bundle.open(DEMO / "bundle").manifest.encoders
    feed = CameraFeed(camera, encoders, lambda _, what: news.put(what))
    real = subprocess.Popen

    def scarce(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        monkeypatch.setattr(subprocess, "Popen", real)
        raise OSError(cause, os.strerror(cause))

    monkeypatch.setattr(subprocess, "Popen", scarce)
    feed.start()
    try:
        ended = news.get(timeout=60)
        assert isinstance(ended, Ended)
        assert ended.detail == f"no process can be started now: {os.strerror(cause)}"
        assert isinstance(news.get(timeout=60), Opened)
    finally:
        feed.stop()
        assert feed.join(60)


def test_a_stream_that_is_lost_while_its_process_lives_is_offline_until_it_is_back() -> None:
    with closing(JpegCamera()) as station:
        camera, encoders = Camera(id="gate", source=station.url), Bundle.open(DEMO / "bundle").manifest.encoders
        feed = CameraFeed(camera, encoders, lambda *_: None)
        feed.start()
        try:
            until(lambda: feed.state == CameraState.WATCHING)
            station.muted.set()
            until(lambda: feed.state == CameraState.OFFLINE)
            assert (feed.why, feed.lost, feed.restarts) == ("stream lost", "stream lost", 0)
            station.muted.clear()
            until(lambda: feed.state == CameraState.WATCHING)
            assert (feed.why, feed.lost, feed.restarts) == ("", "", 0)
        finally:
            feed.stop()
            assert feed.join(60)
