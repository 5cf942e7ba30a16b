"""Sound is heard whatever channel it is in, the same live and recorded."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ovavel.runtime.cli import main
from ovavel.runtime.commands.options import parse_channel
from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.pipeline.channels import ChannelChooser
from ovavel.runtime.pipeline.preprocess import prepare_waveform
from ovavel.runtime.results import read_json
from ovavel.runtime.types import RATE_HZ, Samples, Window

DEMO = Path(__file__).parents[3] / "eval" / "demo" / "assets"
levels = st.sampled_from([0.0, 1e-6, 5e-5, 1e-3, 0.1, 0.5])
"""Root mean squares from nothing to loud."""


def second(*level: float) -> NDArray[np.float32]:
    """(C, 16000): a tone of its own in each channel, of so much root mean square."""
    tones = [np.sqrt(2) * each * np.sin(np.arange(RATE_HZ) * (0.1 + 0.01 * c)) for c, each in enumerate(level)]
    return np.array(tones, np.float32)


def choices(*seconds: tuple[float, ...]) -> list[int | None]:
    chooser = ChannelChooser("auto")
    return [chooser.choose(second(*levels)).channel for levels in seconds]


def test_the_first_channel_unless_it_is_silent_while_another_is_not() -> None:
    assert choices((0.1, 0.5), (0, 0), (0.01, 0.5)) == [0, 0, 0]
    assert choices((0, 0), (0, 0.1), (0, 0), (0, 0.1)) == [0, 1, 1, 1]
    assert choices((0.1, 0.1), (0, 0.1), (0, 0), (0.1, 0.1), (0, 0)) == [0, 1, 1, 0, 0]


def test_then_the_loudest_since() -> None:
    assert choices((0, 0.01, 0.1), (0, 0.02, 0), (0, 0.5, 0.1), (0, 0, 0.1)) == [2, 2, 1, 1]


def test_what_leaks_and_the_noise_of_an_open_input_are_silence() -> None:
    assert choices((5e-4, 0.1)) == [1]  # compression leaks some of the other channel
    assert choices((5e-5, 1e-3)) == [1]  # noise of an input with nothing plugged in
    assert choices((5e-5, 6e-5), (5e-3, 0.1)) == [0, 0]  # quiet, both; quieter, but there


def test_another_number_of_channels_starts_again() -> None:
    assert choices((0, 0.1), (0.1,), (0, 0), (0, 0, 0.1)) == [1, 0, 0, 2]


@given(st.lists(st.tuples(levels, levels, levels), max_size=8), st.sampled_from(["auto", "first", "mix", 0, 2]))
def test_no_second_depends_on_a_later_one_and_none_is_lost(seconds: list[tuple[float, ...]], wanted: object) -> None:
    one, other = ChannelChooser(wanted), ChannelChooser(wanted)  # type: ignore[arg-type]
    chosen = [one.choose(second(*each)) for each in seconds]
    for n, each in enumerate(seconds):
        again = other.choose(second(*each))
        assert again.channel == chosen[n].channel
        np.testing.assert_array_equal(again.waveform, chosen[n].waveform)
        if again.channel is not None:
            assert sorted(map(bytes, again.waveform)) == sorted(map(bytes, second(*each)))
            np.testing.assert_array_equal(again.waveform[0], second(*each)[again.channel])


def test_the_first_channel_passes_unchanged() -> None:
    waveform = second(0.1, 0.5)
    for wanted in ("first", "auto", 0):
        assert ChannelChooser(wanted).choose(waveform).waveform is waveform  # type: ignore[arg-type]


def test_the_mean_of_all_channels_is_still_what_is_subtracted() -> None:
    waveform = second(0, 0.1)
    chosen = ChannelChooser("auto").choose(waveform).waveform
    np.testing.assert_array_equal(prepare_waveform(chosen), prepare_waveform(waveform[::-1].copy()))


def test_a_channel_that_is_not_there_is_an_error_and_one_that_goes_away_is_declared() -> None:
    with pytest.raises(MediaError, match="has 1 channel and no channel 1: they count from 0"):
        ChannelChooser(1).choose(second(0.1))
    assembler = WindowAssembler(frozenset({"audio"}), live=False, channel=1)
    windows: list[Window] = []
    for n, waveform in enumerate((second(0.1, 0.2), second(0.1), second(0.1))):
        windows += assembler.push(Samples(time_s=float(n), captured_s=0.0, waveform=waveform, rate_hz=RATE_HZ))
    windows += assembler.flush()
    assert [window.channel for window in windows] == [1, None, None]
    assert [gap.cause for gap in windows[2].gaps] == ["no such channel"]
    assert windows[2].waveform is None


def test_a_channel_that_a_recording_lacks_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    bundle = ["--bundle", str(DEMO / "bundle"), "--device", "cpu", "--channel", "1"]
    for command in (
        ["localize", str(DEMO / "clip.mp4")],
        ["live", str(DEMO / "clip.mp4"), "--view", "none"],
    ):
        assert main([*command, *bundle]) == 1
        said = capsys.readouterr().err
        assert "has 1 channel and no channel 1" in said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    "text", ["", "-1", "64", "1.0", "nan", "left", "²", "AUTO", "9" * 5000], ids=lambda text: text[:5]
)
def test_what_is_no_channel_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="--channel takes auto, first, mix or a number"):
        parse_channel(text)
    assert main(["localize", "a.mp4", "--bundle", "b", f"--channel={text}"]) == 2


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's clip, its sound in the second of two channels."""
    import av

    path = tmp_path_factory.mktemp("channels") / "clip.mp4"
    with av.open(str(DEMO / "clip.mp4")) as source, av.open(str(path), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("aac", rate=source.streams.audio[0].rate, layout="stereo")
        for packet in source.demux(source.streams.video[0], source.streams.audio[0]):
            if packet.stream.type == "video":
                if packet.dts is not None:
                    packet.stream = video
                    target.mux(packet)
                continue
            for frame in packet.decode():
                mono = frame.to_ndarray()[:1]
                stereo = av.AudioFrame.from_ndarray(np.concatenate([np.zeros_like(mono), mono]), "fltp", "stereo")
                stereo.rate, stereo.pts, stereo.time_base = frame.rate, frame.pts, frame.time_base
                target.mux(sound.encode(stereo))
        target.mux(sound.encode())
    return path


@pytest.mark.parametrize(("channel", "found"), [("auto", True), ("1", True), ("mix", True), ("first", False)])
def test_a_recording_whose_sound_is_elsewhere(
    elsewhere: Path, channel: str, found: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--bundle", str(DEMO / "bundle"), "--device", "cpu", "--out", str(tmp_path), "--format", "json"]
    assert main(["localize", str(elsewhere), *options, "--channel", channel]) == 0
    reported = capsys.readouterr().out
    document = read_json(tmp_path / "clip.mp4.ovavel.json")
    labels = [event.label for event in document.events]
    assert (labels == [event.label for event in _truth(tmp_path)]) == found
    assert reported.count("listening to channel 1") == (channel == "auto")
    heard = {"auto": {1: 40}, "1": {1: 40}, "first": {0: 40}, "mix": {}}[channel]
    assert document.channels == heard


def _truth(folder: Path) -> tuple:
    options = ["--bundle", str(DEMO / "bundle"), "--device", "cpu", "--out", str(folder / "truth"), "--format", "json"]
    assert main(["localize", str(DEMO / "clip.mp4"), *options]) == 0
    return read_json(folder / "truth" / "clip.mp4.ovavel.json").events
