"""Faults of links, cameras, processes, receivers and readers. Each hurts, and leaves the place as it should be."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable

import psutil

from ovavel.runtime.types import GapCause
from ovavel.service.failpoints import FAILPOINTS
from support.chaos.camera import STREAM_FAULTS, StreamFault
from support.chaos.losses import lacking_s
from support.chaos.place import CAMERAS, Place
from support.chaos.receivers import HOOK
from support.faulty_link import LINK_FAULTS, LinkFault
from support.service import until

__all__ = ["FAULTS", "Fault", "LeftOut"]

Fault = Callable[[Place, random.Random], str | None]
"""Hurts; returns the one camera that may notice, or None if all may. AssertionError says what did not hold."""

_ELSEWHERE = {"store.migration-copied", "store.backup-written", "store.replaced-kept", "store.before-ballast-freed"}
"""Failpoints of an update, a backup and a full disk, which a service that runs does not reach by itself."""
_REACHED_S = 300.0
_MISSES: dict[StreamFault, str] = {
    "sound vanishes": "audio", "sound never sent": "audio", "picture vanishes": "vision",
}  # fmt: skip
"""The sense that windows must lack meanwhile."""


class LeftOut(Exception):  # noqa: N818 - no error: what this machine cannot do
    """The fault cannot be made here; says why."""


def _link(kind: LinkFault) -> Fault:
    def hurt(place: Place, chance: random.Random) -> str:
        number = chance.randrange(len(place.links))
        place.links[number].fault = kind
        time.sleep(chance.uniform(2, 8))
        place.links[number].fault = None
        return CAMERAS[number]

    return hurt


def _flapping(place: Place, chance: random.Random) -> str:
    number = chance.randrange(len(place.links))
    for _ in range(8):
        place.links[number].fault = "reset"
        time.sleep(chance.uniform(0.2, 1))
        place.links[number].fault = None
        time.sleep(chance.uniform(0.2, 2))
    return CAMERAS[number]


def _offline_at_start(place: Place, chance: random.Random) -> None:
    """The other cameras are watched all the same."""
    number = chance.randrange(len(place.links))
    assert place.end() == 0
    place.links[number].fault = "refused"
    place.start()
    asked_us = place.clock.now_us
    try:
        for camera in CAMERAS:
            if camera != CAMERAS[number]:
                until(lambda camera=camera: place.whole_since(camera, asked_us))  # type: ignore[misc]
        assert not place.whole_since(CAMERAS[number], asked_us), "it saw a camera that is not there"
    finally:
        place.links[number].fault = None


def _stream(kind: StreamFault) -> Fault:
    def hurt(place: Place, chance: random.Random) -> str:
        number, sense = chance.randrange(len(place.cameras)), _MISSES.get(kind, "")
        before_s = lacking_s(place, CAMERAS[number], sense)
        place.cameras[number].stream_fault = kind
        if kind == "sound never sent":  # it is declared when a connection begins
            place.links[number].fault = "reset"
            time.sleep(0.5)
            place.links[number].fault = None
        time.sleep(chance.uniform(6, 12))
        try:
            if sense:
                until(lambda: lacking_s(place, CAMERAS[number], sense) > before_s)
        finally:
            place.cameras[number].stream_fault = None
        return CAMERAS[number]

    return hurt


def _child(module: str, number: signal.Signals) -> Fault:
    def hurt(place: Place, chance: random.Random) -> None:
        if children := place.children(module):
            with contextlib.suppress(psutil.Error):
                chance.choice(children).send_signal(number)

    return hurt


def _slow_encoder(place: Place, chance: random.Random) -> None:
    """It runs for a small part of the time: more windows than it can encode."""
    before = place.dropped(GapCause.ENCODER_TOO_SLOW)
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s and place.dropped(GapCause.ENCODER_TOO_SLOW) == before:
        for encoder in place.children("encoding.child"):
            with contextlib.suppress(psutil.Error):
                encoder.suspend()
                time.sleep(chance.uniform(8, 12))
                encoder.resume()
        time.sleep(0.1)
    assert place.dropped(GapCause.ENCODER_TOO_SLOW) > before, "no dropped window was counted"


def _killed(place: Place, chance: random.Random) -> None:
    """At a random moment, now and then before its page is up."""
    if chance.random() < 0.3:
        place.kill()
        process = place.launch()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, 4))
    else:
        time.sleep(chance.uniform(0, 3))
    place.kill()
    place.start()


def _killed_at(failpoint: str) -> Fault:
    def hurt(place: Place, chance: random.Random) -> None:
        place.kill()
        place.start(f"{failpoint}:{chance.randrange(1, 60) if failpoint.startswith('store.') else 1}")
        assert place.process
        try:
            place.process.wait(_REACHED_S)
        except subprocess.TimeoutExpired:
            place.kill()
            raise AssertionError("the failpoint was not reached") from None
        finally:
            place.start()

    return hurt


def _ended_twice(place: Place, chance: random.Random) -> None:
    code = place.end(signals=chance.randrange(1, 4))
    place.start()
    assert code == 0, f"SIGTERM ended it with {code}"


def _ended_while_all_hang(place: Place, _: random.Random) -> None:
    """SIGTERM while a receiver, a camera and the encoder do not answer."""
    place.receivers.webhook.forever = "silence"
    place.links[0].fault = "stalled"
    for encoder in place.children("encoding.child"):
        encoder.suspend()
    time.sleep(3)
    code = place.end()
    place.receivers.webhook.forever, place.links[0].fault = None, None
    place.start()
    assert code == 0, f"SIGTERM ended it with {code}"


def _slow_readers(place: Place, _: random.Random) -> None:
    with contextlib.ExitStack() as opened:
        for _number in range(200):
            opened.enter_context(urllib.request.urlopen(place.address + "api/v1/stream", timeout=30))
        time.sleep(5)


def _webhook(answer: int | str) -> Fault:
    def hurt(place: Place, chance: random.Random) -> str:
        place.receivers.webhook.forever = answer
        time.sleep(chance.uniform(5, 10))
        place.receivers.webhook.forever = None
        return ""  # no camera may notice

    return hurt


def _webhook_gone(place: Place, _: random.Random) -> None:
    """A receiver that is gone for good is asked again after the next start."""
    place.receivers.webhook.forever = 410
    end_s = time.monotonic() + 60
    failed = "SELECT 1 FROM outbox WHERE sink = ? AND state = 'failed' LIMIT 1"
    with contextlib.closing(place.reader()) as reader:
        while not reader.execute(failed, (HOOK,)).fetchall() and time.monotonic() < end_s:
            time.sleep(0.2)
        assert reader.execute(failed, (HOOK,)).fetchall(), "nothing was given up"
    place.receivers.webhook.forever = None
    assert place.end() == 0
    place.start()


def _broker_restarted(place: Place, chance: random.Random) -> str:
    if not place.receivers.broker:
        raise LeftOut("there is no mosquitto")
    place.receivers.restart_broker(chance.uniform(0, 5))
    return ""


def _broker_link(kind: LinkFault) -> Fault:
    def hurt(place: Place, chance: random.Random) -> str:
        if not place.receivers.broker:
            raise LeftOut("there is no mosquitto")
        place.receivers.link.fault = kind
        time.sleep(chance.uniform(3, 8))
        place.receivers.link.fault = None
        return ""

    return hurt


def _site_cut_off(whole: str, chance: random.Random) -> str:
    """A site file that ends in the middle of a value."""
    inside = [at for at, letter in enumerate(whole) if whole[:at].count('"') % 2 and letter not in '"\n']
    return whole[: chance.choice(inside)]


def _broken_site_reloaded(place: Place, chance: random.Random) -> str:
    """The configuration that was in force stays in force, and the page says so."""
    whole, says = place.site.read_text(), "not in force"
    place.site.write_text(_site_cut_off(whole, chance))
    try:
        place.reload()
        until(lambda: says in place.page("health"))
    finally:
        place.site.write_text(whole)
        place.reload()
    until(lambda: says not in place.page("health"))
    return ""


def _camera_removed_and_added(place: Place, chance: random.Random) -> str:
    """By reading the site file again; what it was doing then ends."""
    camera, happening = chance.choice(CAMERAS), "SELECT id FROM event WHERE state = 'open' AND camera_id = ?"
    with contextlib.closing(place.reader()) as reader:
        end_s = time.monotonic() + 10  # during an event, if there is one soon
        while not reader.execute(happening, (camera,)).fetchall() and time.monotonic() < end_s:
            time.sleep(0.1)
        place.write_site(tuple(each for each in CAMERAS if each != camera))
        try:
            place.reload()
            until(lambda: camera not in _watched(place))
            until(lambda: not reader.execute(happening, (camera,)).fetchall())
        finally:
            place.write_site(CAMERAS)
            place.reload()
    until(lambda: camera in _watched(place))
    return camera


def _watched(place: Place) -> set[str]:
    return {each["id"] for each in place.ask("api/v1/cameras") or ()}


def _broken_site(place: Place, chance: random.Random) -> None:
    """A site file that is cut off in the middle of a value, as a start finds it."""
    assert place.end() == 0
    whole = place.site.read_text()
    place.site.write_text(_site_cut_off(whole, chance))
    try:
        assert str(place.site) in place.refused()
    finally:
        place.site.write_text(whole)
        place.start()


def _camera_removed(place: Place, chance: random.Random) -> None:
    """Killed, started without one of its cameras, and with it again."""
    place.kill()
    missing = chance.choice(CAMERAS)
    place.write_site(tuple(camera for camera in CAMERAS if camera != missing))
    place.start()
    time.sleep(chance.uniform(2, 5))
    with contextlib.closing(place.reader()) as reader:
        still_open = reader.execute(
            "SELECT id FROM event WHERE state = 'open' AND camera_id = ?", (missing,)
        ).fetchall()
    place.write_site(CAMERAS)
    assert place.end() == 0
    place.start()
    assert not still_open, f"{still_open} are open though their camera was removed"


FAULTS: dict[str, Fault] = {
    **{f"camera {kind}": _link(kind) for kind in LINK_FAULTS},
    "camera flapping": _flapping,
    "camera offline at the start": _offline_at_start,
    **{f"stream: {kind}": _stream(kind) for kind in STREAM_FAULTS},
    "capture killed": _child("capture.child", signal.SIGKILL),
    "capture stopped": _child("capture.child", signal.SIGSTOP),
    "capture segmentation fault": _child("capture.child", signal.SIGSEGV),
    "encoder killed": _child("encoding.child", signal.SIGKILL),
    "encoder stopped": _child("encoding.child", signal.SIGSTOP),
    "encoder too slow": _slow_encoder,
    "service killed": _killed,
    **{f"service killed at {name}": _killed_at(name) for name in FAILPOINTS if name not in _ELSEWHERE},
    "service ended and started": _ended_twice,
    "service ended while all hang": _ended_while_all_hang,
    "200 readers that do not read": _slow_readers,
    **{f"webhook answers {answer}": _webhook(answer) for answer in (500, 429, "silence", "hang", "drop")},
    "webhook gone for good": _webhook_gone,
    "broker restarted without memory": _broker_restarted,
    "broker stalled": _broker_link("stalled"),
    "broker refused": _broker_link("refused"),
    "site file half-written": _broken_site,
    "site file half-written, reloaded": _broken_site_reloaded,
    "camera removed between two runs": _camera_removed,
    "camera removed and added": _camera_removed_and_added,
}
