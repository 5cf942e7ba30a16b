"""Days of the demo world: any second by itself, always the same, and labels that say what is drawn and sounded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovavel.eval.demo.world.camera import Camera
from ovavel.eval.demo.world.day import Day, DaySource
from ovavel.eval.demo.world.kinds import BACKGROUND
from ovavel.eval.demo.world.microphone import Microphone
from ovavel.eval.demo.world.plan import DAY_KINDS, HOUR_S, plan_hour
from ovavel.runtime.pipeline.assembler import WindowAssembler

DAYS = st.sampled_from(tuple(DAY_KINDS))
SEEDS = st.integers(0, 2**32 - 1)


class TestPlan:
    @settings(max_examples=20, deadline=None)
    @given(day=DAYS, seed=SEEDS, hour=st.integers(0, 23))
    def test_episodes_stay_within_their_hour_and_never_overlap(self, day, seed, hour) -> None:
        episodes = plan_hour(day, seed, hour)
        ends = [hour * HOUR_S, *(episode.end_s for episode in episodes)]
        assert all(end <= episode.first_s for end, episode in zip(ends, episodes, strict=False))
        assert ends[-1] <= (hour + 1) * HOUR_S

    @pytest.mark.parametrize("day", ["sparse", "dense"])
    def test_every_hour_has_its_events(self, day) -> None:
        for seed in range(3):
            for hour in range(2):
                episodes = plan_hour(day, seed, hour)
                assert sum(any(episode.script.labels) for episode in episodes) == DAY_KINDS[day].events
                assert len(episodes) == len(DAY_KINDS[day].episodes)

    def test_at_worst_something_moves_and_sounds_in_nearly_every_second(self) -> None:
        scripts = [episode.script for episode in plan_hour("worst", 0, 0)]
        busy = sum(
            bool(shown and heard) for script in scripts for shown, heard in zip(script.shown, script.heard, strict=True)
        )
        assert busy > 0.99 * HOUR_S


class TestDay:
    @settings(max_examples=6, deadline=None)
    @given(day=DAYS, seed=SEEDS, data=st.data())
    def test_any_second_is_the_same_in_any_order_and_in_a_longer_day(self, day, seed, data) -> None:
        short, long = Day(day, seed, 600), Day(day, seed, HOUR_S + 600)
        seconds = data.draw(st.lists(st.integers(0, 599), min_size=2, max_size=4, unique=True))
        made = {second: (short.frame(second + 0.5), short.sound(second)) for second in seconds}
        for second in reversed(seconds):
            frame, sound = made[second]
            assert np.array_equal(long.frame(second + 0.5), frame)
            assert np.array_equal(long.sound(second), sound)
        assert long.labels[:600] == short.labels

    def test_another_seed_is_another_day(self) -> None:
        one, other = (Day("dense", seed, 100) for seed in (0, 1))
        assert (one.frame(3.5) != other.frame(3.5)).any()
        assert (one.sound(3) != other.sound(3)).any()

    @settings(max_examples=8, deadline=None)
    @given(day=DAYS, seed=st.integers(0, 20), data=st.data())
    def test_a_label_says_what_is_drawn_and_what_sounds(self, day, seed, data) -> None:
        made = Day(day, seed, 900)
        # Beside the same noise, light and leaves without anything in sight, and the same rooms without a sound
        camera, microphone = Camera(made.surroundings, seed), Microphone(made.surroundings, seed)
        number = data.draw(st.integers(0, len(made.episodes) - 1))
        episode = made.episodes[number]
        rings = number > 0 and made.episodes[number - 1].end_s == episode.first_s  # a room is heard after a sound
        for second in range(episode.first_s, min(900, episode.end_s)):
            place = second - episode.first_s
            shown, heard = episode.script.shown[place], episode.script.heard[place]
            changed = np.abs(made.frame(second + 0.5).astype(int) - camera.frame(second + 0.5)).max(axis=2) > 15
            assert changed.mean() > 0.001 if shown else not changed.any(), second
            louder = np.abs(made.sound(second) - microphone.second(second, ())).max()
            if heard:
                assert louder > 0.03, second
            elif not rings and not any(episode.script.heard[:place]):
                assert louder < 1e-6, second  # what convolution leaves
            assert made.labels[second] == (shown.name if shown and shown == heard else BACKGROUND)

    def test_events_are_the_runs_of_labels(self) -> None:
        for day in DAY_KINDS:
            made = Day(day, 4, 2000)
            labels = [BACKGROUND] * 2000
            for event, later in zip(made.events, (*made.events[1:], None), strict=True):
                labels[int(event.start_s) : int(event.end_s)] = [event.label] * int(event.end_s - event.start_s)
                assert later is None or (later.label, later.start_s) != (event.label, event.end_s)
            assert tuple(labels) == made.labels

    def test_an_idle_camera_only_shows_noise_between_seconds_in_a_lull(self) -> None:
        made = Day("sparse", 0, HOUR_S)
        around = made.surroundings
        calm = [
            second
            for second in range(10, HOUR_S - 1)
            if not made._around(second, second + 2)
            and max(around.wind(second), around.wind(second + 1), around.rain(second), around.rain(second + 1)) < 0.01
            and around.offset_px(second) == around.offset_px(second + 2)
        ]
        assert len(calm) > 100
        differences = [made.frame(t + 0.5).astype(int) - made.frame(t + 1.5) for t in calm[:: len(calm) // 10]]
        spread = np.median([difference.std() for difference in differences])
        assert 1 < spread / around.noise(calm[0]) < 2  # of two frames, with independent noise: √2


class TestSource:
    def test_each_second_becomes_a_whole_window(self) -> None:
        day = Day("dense", 3, 30)
        assembler = WindowAssembler(frozenset(("vision", "audio")), live=False)
        windows = [window for chunk in DaySource(day).chunks() for window in assembler.push(chunk)] + assembler.flush()
        assert len(windows) == 30
        for second, window in enumerate(windows):
            assert not window.gaps
            assert np.array_equal(window.frame, day.frame(second + 0.5))
            assert np.allclose(window.waveform[0], day.sound(second), atol=1e-6)

    def test_closing_ends_it(self) -> None:
        source = DaySource(Day("sparse", 0, 1000))
        chunks = source.chunks()
        next(chunks)
        source.close()
        assert len(list(chunks)) <= 1
