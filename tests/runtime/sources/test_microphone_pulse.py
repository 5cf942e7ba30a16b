"""A real microphone: PortAudio on a PulseAudio null sink."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import pulse

from ovavel.runtime.errors import DeviceError
from ovavel.runtime.sources.devices import Microphone
from ovavel.runtime.sources.microphone import find_microphone


def test_microphone_by_index_name_part_or_default() -> None:
    front = Microphone(index=0, name="USB Audio: Front", channels=2, rate_hz=48_000, default=False)
    back = Microphone(index=3, name="USB Audio: Back", channels=1, rate_hz=16_000, default=True)
    both = (front, back)
    assert find_microphone(0, both) is front
    assert find_microphone("usb audio: back", both) is back
    assert find_microphone("front", both) is front
    assert find_microphone("default", both) is back
    with pytest.raises(
        DeviceError, match=r"more than one microphone is called 'USB'.*0: USB Audio: Front; 3: USB Audio"
    ):
        find_microphone("USB", both)
    with pytest.raises(DeviceError, match=r"no microphone 1.*3: USB Audio: Back"):
        find_microphone(1, both)
    with pytest.raises(DeviceError, match="Microphones of this machine: none"):
        find_microphone("default", ())


def listen(environment: dict[str, str], code: str, heed: Callable[[str], None] = lambda line: None) -> dict:
    """Run `code` where PortAudio sees the null sink; what it puts into `found` comes back. `heed` gets what it says."""
    script = f"""
import json, sys, threading, time
import numpy as np
from ovavel.runtime.errors import OvavelError
from ovavel.runtime.sources.camera_mic import CameraMicSource
from ovavel.runtime.types import Gap, Notice, Samples
found = {{}}
{code}
print(json.dumps(found))
"""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        line = ""
        try:
            for line in process.stdout:
                heed(line.strip())
            process.wait(100)
        finally:
            process.kill()
        errors.seek(0)
        assert process.returncode == 0, errors.read()
    return json.loads(line)


def test_no_microphone(tmp_path: Path) -> None:
    pulse.need_portaudio()  # without it the error is another one: tests/runtime/commands/test_doctor.py
    (tmp_path / ".asoundrc").write_text("")
    code = """
try:
    CameraMicSource(None, "default")
except OvavelError as error:
    found = {"error": type(error).__name__, "message": str(error)}
"""
    found = listen({"HOME": str(tmp_path), "PULSE_SERVER": "unix:/nowhere", "PATH": ""}, code)
    assert found["error"] == "DeviceError"
    assert "Microphones of this machine" in found["message"]


def test_a_microphone_that_is_busy(tmp_path: Path) -> None:
    code = """
import sounddevice
def busy(**options):
    raise sounddevice.PortAudioError("Device unavailable", -9985)
sounddevice.InputStream = busy
try:
    CameraMicSource(None, "default")
except OvavelError as error:
    found = {"error": type(error).__name__, "message": str(error)}
"""
    with pulse.null_sink(tmp_path) as server:
        found = listen(server.environment, code)
    assert found["error"] == "DeviceError"
    assert "Is another program using it?" in found["message"]


def test_the_microphone_hears_a_tone_when_it_sounds(tmp_path: Path) -> None:
    code = """
import subprocess
source = CameraMicSource(None, "default")
marks, late_s = [], [0.0]
def lateness():
    # how long this machine lets what is due wait
    while len(marks) < 5:
        due_s = time.monotonic() + 0.01
        time.sleep(0.01)
        late_s[0] = max(late_s[0], time.monotonic() - due_s)
def toggle():
    # silence is heard at once, so this measures the clock: the sine sounds all the time
    for state in "1010":
        time.sleep(0.8)
        before_s = time.monotonic() - begin_s
        subprocess.run(["pactl", "set-sink-mute", "null", state], check=True)
        marks.append((before_s, time.monotonic() - begin_s))
    time.sleep(0.8)
    marks.append((time.monotonic() - begin_s,) * 2)
    source.close()
begin_s = time.monotonic()
threading.Thread(target=lateness).start()
threading.Thread(target=toggle).start()
chunks = list(source.chunks())
blocks = [chunk for chunk in chunks if isinstance(chunk, Samples)]
rate_hz = blocks[0].rate_hz
switches, loud = [], None
for block in blocks:
    for start in range(0, block.waveform.shape[1] - 200, 200):
        now_loud = bool(np.abs(block.waveform[0, start:start + 200]).max() > 0.05)
        if loud is not None and now_loud != loud:
            switches.append((block.time_s + start / rate_hz, now_loud))
        loud = now_loud
whole = np.concatenate([block.waveform for block in blocks], axis=1)
spectrum = np.abs(np.fft.rfft(whole[0]))
found = {
    "name": source.name, "senses": sorted(source.senses), "rate_hz": rate_hz, "channels": whole.shape[0],
    "peak_hz": float(spectrum.argmax() * rate_hz / whole.shape[1]),
    "marks": marks, "switches": switches, "first_s": blocks[0].time_s, "duration_s": whole.shape[1] / rate_hz,
    "last_s": blocks[-1].time_s, "lag_s": float(np.median([b.captured_s - begin_s - b.time_s for b in blocks])),
    "late_s": late_s[0],
}
"""
    with pulse.null_sink(tmp_path) as server:
        server.control("load-module", "module-sine", "sink=null", "frequency=440")
        found = listen(server.environment, code)
    assert found["name"] == "microphone default"
    assert found["senses"] == ["audio"]
    assert found["channels"] == 2
    assert found["peak_hz"] == pytest.approx(440, abs=5)
    late_s = found["late_s"]  # of a busy machine; next to nothing otherwise
    assert 0 <= found["first_s"] < 0.3 + 4 * late_s
    *marks_s, (closed_s, _) = found["marks"]
    assert found["duration_s"] == pytest.approx(closed_s - found["first_s"], abs=0.5 + 4 * late_s)
    assert 0 < found["lag_s"] < 0.5 + 4 * late_s
    errors_s = [
        min(max(before_s - at_s, at_s - after_s) for at_s, loud in found["switches"] if loud == (index % 2 == 1))
        for index, (before_s, after_s) in enumerate(marks_s)
    ]
    assert np.median(errors_s) < 0.1 + 4 * late_s, found


def test_a_microphone_that_is_unplugged_and_plugged_in_again(tmp_path: Path) -> None:
    code = """
reported = []
source = CameraMicSource(None, "default")
timer = threading.Timer(100, source.close)
timer.start()
gaps, heard, back = [], False, 0
for chunk in source.chunks():
    if isinstance(chunk, Notice):
        reported.append(chunk.message)
    if isinstance(chunk, Samples) and not heard:
        heard = True
        print("heard", flush=True)  # now it may be unplugged
    if isinstance(chunk, Gap):
        if not gaps:
            print("gone", flush=True)
        gaps.append((chunk.cause, chunk.start_s, chunk.duration_s))
    if isinstance(chunk, Samples) and reported and "is back" in reported[-1]:
        back = chunk.time_s
        source.close()
timer.cancel()
found = {"reported": reported, "gaps": gaps, "back_s": back}
"""
    with pulse.null_sink(tmp_path) as server:
        again: list[pulse.PulseServer] = []

        def replug(line: str) -> None:
            if line == "heard":
                server.stop()
            elif line == "gone":
                time.sleep(2)  # so long at least
                again.append(pulse.start(tmp_path))

        try:
            found = listen(server.environment, code, replug)
        finally:
            for each in again:
                each.stop()
    assert ["is lost" in found["reported"][0], "is back" in found["reported"][-1]] == [True, True]
    assert all("is still lost" in text for text in found["reported"][1:-1])
    assert {cause for cause, _, _ in found["gaps"]} == {"microphone lost"}
    for (_, start_s, duration_s), (_, next_s, _) in zip(found["gaps"], found["gaps"][1:], strict=False):
        assert next_s == pytest.approx(start_s + duration_s)
    assert sum(duration_s for _, _, duration_s in found["gaps"]) > 2
    _, start_s, duration_s = found["gaps"][-1]
    assert found["back_s"] == pytest.approx(start_s + duration_s, abs=0.01)
