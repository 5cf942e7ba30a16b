"""A private PulseAudio with a null sink, so that sound played into it is heard by the default microphone."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.needed import missing

ASOUNDRC = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"
PLUGIN = "libasound_module_pcm_pulse.so"


@dataclass(frozen=True, slots=True, kw_only=True)
class PulseServer:
    """A running server. Programs started with `environment` record what is played into its null sink."""

    environment: dict[str, str]
    """A whole environment for `subprocess`, because PortAudio reads it when it is loaded."""
    process: subprocess.Popen[bytes]

    def control(self, *arguments: str) -> str:
        """Run `pactl`, e.g. `control("load-module", "module-sine", "sink=null", "frequency=440")`."""
        done = subprocess.run(
            ["pactl", *arguments], env=self.environment, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout.strip()

    def play(self, wav: Path) -> subprocess.Popen[bytes]:
        """Play a sound file into the sink; returns at once."""
        return subprocess.Popen(["paplay", str(wav)], env=self.environment)

    def stop(self) -> None:
        """End the server, as if the sound card were pulled."""
        self.process.terminate()
        self.process.wait(60)


def need_portaudio() -> None:
    """Skip the test where the PortAudio library is not installed."""
    try:
        ctypes.CDLL("libportaudio.so.2")
    except OSError:
        missing("PortAudio", "libportaudio2")


@contextmanager
def null_sink(folder: Path, *, rate_hz: int = 48_000) -> Iterator[PulseServer]:
    """Run a server with its socket and settings in `folder`; skips the test where something is not installed."""
    need_portaudio()
    if not all(map(shutil.which, ("pulseaudio", "pactl", "paplay"))):
        missing("PulseAudio", "pulseaudio pulseaudio-utils")
    if not any(True for places in ("lib*", "lib*/*") for _ in Path("/usr").glob(f"{places}/alsa-lib/{PLUGIN}")):
        missing("ALSA's plugin for PulseAudio", "libasound2-plugins")
    server = start(folder, rate_hz=rate_hz)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def start(folder: Path, *, rate_hz: int = 48_000) -> PulseServer:
    """Start the server and wait until it answers. Calling it again after `stop` plugs it in again."""
    runtime = folder / "pulse"
    runtime.mkdir(mode=0o700, exist_ok=True)
    (folder / ".asoundrc").write_text(ASOUNDRC)
    socket = runtime / "native"
    socket.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "HOME": str(folder),
        "PULSE_RUNTIME_PATH": str(runtime),
        "XDG_RUNTIME_DIR": str(runtime),
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_SINK": "null",
        "PULSE_SOURCE": "null.monitor",
    }
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--log-level=error"]
    modules = [
        f"--load=module-native-protocol-unix socket={socket} auth-anonymous=1",
        f"--load=module-null-sink sink_name=null rate={rate_hz}",
    ]
    process = subprocess.Popen([*command, *modules], env=environment, stderr=subprocess.DEVNULL)
    server = PulseServer(environment=environment, process=process)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert "null.monitor" in server.control("list", "short", "sources")
            return server
        except (subprocess.CalledProcessError, AssertionError):
            if time.monotonic() > deadline or process.poll() is not None:
                process.kill()
                raise
            time.sleep(0.1)
