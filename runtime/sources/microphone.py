"""A microphone, through PortAudio."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ovavel.runtime.errors import DeviceError
from ovavel.runtime.sources.connection import Feed
from ovavel.runtime.sources.devices import Microphone, list_microphones, load_sounddevice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Block", "MicrophoneFeed", "find_microphone"]

# n samples in a block

MAX_CHANNELS = 2
MAX_WAITING_S = 30.0
"""Queued sound beyond this is dropped and counted."""
LATENCY_S = 0.1
"""Requested buffer length: enough for a busy interpreter, yet short."""
STEADY_S = 0.5
STEADY_WITHIN_S = 0.06
SETTLE_S = 3.0
"""How long to wait at most for reliable block times."""

MAX_AGE_S = 1.0
"""A block that claims to be older than this is only believed if it waited: after a pause, or in a burst of blocks."""
PAUSE_S = 1.0
PACE = 8
"""How many blocks show whether they arrive in a burst or as they are recorded."""
PROMPT = 200
"""Among this many calls, at least one was not delayed."""

_portaudio = threading.Lock()
_open_streams = 0
LEAVE_S = 1.0
"""How long the program waits at exit for streams to be closed by their own threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Sound as PortAudio delivers it."""

    start_s: float
    """Monotonic clock when its first sample was converted, as far as known."""
    arrived_s: float
    """Monotonic clock when PortAudio received it."""
    waveform: NDArray[np.float32]
    """(channels, n) float32."""
    rate_hz: int
    overflow: bool
    """Whether samples before it were lost."""


class MicrophoneFeed(Feed):
    """Records at the microphone's native rate. The audio callback only copies."""

    def __init__(self, microphone: int | str, notify: Callable[[Feed, Block], None], wanted: threading.Event) -> None:
        """Prepare to open `microphone`; each block goes to `notify`, once `wanted` is set."""
        super().__init__(f"microphone {microphone}")
        self._microphone = microphone
        self._notify = notify
        self._wanted = wanted
        self._rate_hz = 0
        self._settled = False
        self._first_s = 0.0
        self._counted = 0
        self._bases_s: deque[tuple[float, float]] = deque()
        self._times = _BlockTimes()
        self._put = 0
        self._taken = 0
        self._overflow = False
        self._finished = threading.Event()

    def taken(self, block: Block) -> None:
        """Record that `block` was taken from the queue."""
        self._taken += block.waveform.shape[1]

    def _serve(self) -> None:
        sounddevice = load_sounddevice()
        try:
            stream = self._open_stream(sounddevice)
        except (DeviceError, sounddevice.PortAudioError):
            # PortAudio lists devices only at start; a restart finds those plugged in since
            if not _restart(sounddevice):
                raise
            stream = self._open_stream(sounddevice)
        try:
            while not self.stopping.wait(0.1):
                if self._finished.is_set() or not stream.active:
                    raise DeviceError("the device stopped")
        finally:
            _close(stream)

    def _open_stream(self, sounddevice: Any) -> Any:
        global _open_streams
        # sounddevice's own exit handler joins PortAudio's thread while that waits for the interpreter: a deadlock.
        atexit.unregister(sounddevice._exit_handler)
        atexit.unregister(_leave)
        atexit.register(_leave, sounddevice)
        with _portaudio:
            found = find_microphone(self._microphone, list_microphones())
            self._rate_hz = found.rate_hz
            try:
                stream = sounddevice.InputStream(
                    device=found.index,
                    samplerate=found.rate_hz,
                    channels=min(MAX_CHANNELS, found.channels),
                    dtype="float32",
                    latency=LATENCY_S,
                    callback=self._copy,
                    finished_callback=self._finished.set,
                )
                stream.start()
            except sounddevice.PortAudioError as error:
                raise DeviceError(
                    f"microphone {found.name!r} cannot be opened: {error}. Is another program using it? "
                    f"{_there_are(list_microphones())}"
                ) from error
            _open_streams += 1
            return stream

    def _copy(self, samples: NDArray[np.float32], count: int, times: Any, status: Any) -> None:
        now_s = self.brought_s = time.monotonic()
        arrived_s, start_s = self._times.of(times.currentTime, times.inputBufferAdcTime, count / self._rate_hz, now_s)
        if not self._settled:
            self._settled = self._settle(arrived_s, start_s, count)
            return
        self.opened.set()
        overflow, self._overflow = self._overflow or bool(status.input_overflow), False
        if not self._wanted.is_set():
            return
        if self._put - self._taken > MAX_WAITING_S * self._rate_hz:
            self._overflow = True
            return
        block = Block(
            start_s=start_s,
            arrived_s=arrived_s,
            waveform=samples.T.copy(),
            rate_hz=self._rate_hz,
            overflow=overflow,
        )
        self._put += count
        self._notify(self, block)

    def _settle(self, arrived_s: float, start_s: float, count: int) -> bool:
        """Whether the block times can be trusted.

        A sound server guesses its delay at first, with errors of up to a second, and corrects it within two seconds.
        The times are right once they agree with the sample count and no block is older than the buffer allows.
        """
        self._first_s = self._first_s or arrived_s
        self._bases_s.append((arrived_s, start_s - self._counted / self._rate_hz))
        self._counted += count
        while self._bases_s[0][0] < arrived_s - STEADY_S:
            self._bases_s.popleft()
        bases_s = [base_s for _, base_s in self._bases_s]
        steady = arrived_s - self._first_s > STEADY_S and max(bases_s) - min(bases_s) < STEADY_WITHIN_S
        fresh = arrived_s - start_s < LATENCY_S + count / self._rate_hz + STEADY_WITHIN_S
        return (steady and fresh) or arrived_s - self._first_s > SETTLE_S


class _BlockTimes:
    """Computes arrival and start of blocks on the monotonic clock, however late the callback runs.

    PortAudio reads its clock before the call, which then waits for the interpreter: while another thread holds it, or
    the whole process is stopped. So the offset between the clocks is the smallest one among many calls.
    """

    def __init__(self) -> None:
        self._apart_s: deque[float] = deque(maxlen=PROMPT)
        self._pace: deque[tuple[float, float]] = deque(maxlen=PACE)

    def of(self, current_s: float, adc_s: float, duration_s: float, now_s: float) -> tuple[float, float]:
        """Return arrival and start of a block of `duration_s` whose callback runs at `now_s` on the monotonic clock.

        `current_s` and `adc_s` are PortAudio's times of the call and of the first sample; 0 where it has none.
        """
        arrived_s = now_s
        if current_s > 0:
            self._apart_s.append(now_s - current_s)
            arrived_s = min(now_s, current_s + min(self._apart_s))
        age_s = current_s - adc_s if current_s > 0 and adc_s > 0 else 0.0
        waited = self._waited(arrived_s, duration_s)
        if age_s > MAX_AGE_S and not waited:
            age_s = 0.0
        return arrived_s, arrived_s - max(age_s, duration_s)

    def _waited(self, arrived_s: float, duration_s: float) -> bool:
        """Whether the block may have waited: it comes after a pause, or faster than it was recorded."""
        paused = bool(self._pace) and arrived_s - self._pace[-1][0] > PAUSE_S
        if paused:
            self._pace.clear()
        first_s = self._pace[0][0] if self._pace else arrived_s
        recorded_s = sum(duration_s for _, duration_s in self._pace)
        self._pace.append((arrived_s, duration_s))
        return paused or arrived_s - first_s < recorded_s / 2


def find_microphone(wanted: int | str, microphones: tuple[Microphone, ...]) -> Microphone:
    """Return the microphone with the index or name `wanted`, the only one whose name contains it, or "default".

    Raises:
        DeviceError: there is none, or more than one.
    """
    if isinstance(wanted, int):
        found = [each for each in microphones if each.index == wanted]
    elif wanted == "default":
        found = [each for each in microphones if each.default]
    else:
        name = wanted.casefold()
        found = [each for each in microphones if each.name.casefold() == name]
        found = found or [each for each in microphones if name in each.name.casefold()]
    if len(found) == 1:
        return found[0]
    what = "there is no microphone" if not found else "more than one microphone is called"
    raise DeviceError(f"{what} {wanted!r}. {_there_are(microphones)}")


def _there_are(microphones: tuple[Microphone, ...]) -> str:
    there = "; ".join(f"{each.index}: {each.name}" for each in microphones) or "none"
    return f"Microphones of this machine: {there}"


def _restart(sounddevice: Any) -> bool:
    """Restart PortAudio to update its device list, unless that would end a stream of another source."""
    with _portaudio:
        if _open_streams:
            return False
        sounddevice._terminate()
        sounddevice._initialize()
        return True


def _leave(sounddevice: Any) -> None:
    """Terminate PortAudio at exit, unless a driver does not release its stream: then it ends with the process."""
    deadline_s = time.monotonic() + LEAVE_S
    while _open_streams and time.monotonic() < deadline_s:
        time.sleep(0.02)
    if not _open_streams:
        sounddevice._exit_handler()


def _close(stream: Any) -> None:
    global _open_streams
    try:
        stream.abort(ignore_errors=True)
        stream.close(ignore_errors=True)
    finally:
        with _portaudio:
            _open_streams -= 1
