"""The encoder's process as the service uses it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import psutil
import pytest
from support.service import DEMO

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.service import link
from ovavel.service.encoding import remote
from ovavel.service.encoding.remote import EncoderLost, RemoteEncoder


@pytest.fixture
def encoder() -> Iterator[RemoteEncoder]:
    with closing(RemoteEncoder(DEMO / "bundle", {"threads": 1})) as opened:
        yield opened


def good() -> list[np.ndarray]:
    return [np.zeros(Bundle.open(DEMO / "bundle").manifest.encoders.vision.shape, np.float32)]


def bad() -> list[np.ndarray]:
    return [np.zeros((1, 2), np.float32)]


def test_an_encoder_that_fails_again_and_again_is_replaced(encoder: RemoteEncoder) -> None:
    first = encoder.pid
    for question in (bad(), bad(), good(), bad(), bad()):
        if question[0].shape == (1, 2):
            with pytest.raises(EncoderLost):
                encoder.encode(question, [])
        else:
            encoder.encode(question, [])
    assert (encoder.pid, encoder.restarts) == (first, 0), "now and then it may fail"
    with pytest.raises(EncoderLost):
        encoder.encode(bad(), [])
    assert encoder.restarts == 1
    assert len(encoder.encode(good(), [])[0]) == 1
    assert encoder.pid != first


def test_closing_does_not_wait_for_an_encoder_that_hangs(encoder: RemoteEncoder) -> None:
    assert encoder.pid
    child = psutil.Process(encoder.pid)
    child.send_signal(signal.SIGSTOP)
    lost: list[str] = []

    def ask() -> None:
        try:
            encoder.encode(good(), [])
        except EncoderLost as error:
            lost.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    while not encoder._turn.locked():  # it is being asked
        pass
    encoder.close()  # within the time limit of a test, far below that of an answer
    asking.join(60)
    assert lost
    assert not child.is_running()
    with pytest.raises(EncoderLost, match="ending"):
        encoder.encode(good(), [])
    assert encoder.restarts == 0


def test_an_encoder_that_hangs_and_takes_no_question_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of frames is larger than what the socket holds."""
    monkeypatch.setattr(link, "_TAKEN_S", 1.0)
    with closing(RemoteEncoder(DEMO / "bundle", {"threads": 1}, answer_s=60)) as encoder:
        assert encoder.pid
        psutil.Process(encoder.pid).send_signal(signal.SIGSTOP)
        with pytest.raises(EncoderLost, match="nothing was taken for 1 s"):
            encoder.encode(64 * good(), [])
        assert len(encoder.encode(good(), [])[0]) == 1


def test_an_encoder_that_hangs_while_it_starts_again_is_replaced(
    encoder: RemoteEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start may take ten minutes; one like it does not."""
    assert encoder._load_s < 600
    hung = []

    class Stopped(remote.Child):
        def __init__(self, module: str) -> None:
            super().__init__(module)
            if not hung:
                self.process.send_signal(signal.SIGSTOP)
                hung.append(self.process.pid)

    monkeypatch.setattr(remote, "Child", Stopped)
    encoder._load_s = 0.5
    assert encoder.pid
    psutil.Process(encoder.pid).kill()
    for _ in range(2):  # one that was killed, and one that hangs
        with pytest.raises(EncoderLost):
            encoder.encode(good(), [])
    encoder._load_s = 60
    assert len(encoder.encode(good(), [])[0]) == 1
    assert not psutil.pid_exists(hung[0])
