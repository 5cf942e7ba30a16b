"""The demo world: frames and sounds match the class name, and seeds are reproducible."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovavel.eval.demo.world.kinds import KINDS, THINGS, Kind
from ovavel.eval.demo.world.scene import Scene, Script, write_script
from ovavel.eval.demo.world.sounds import RATE_HZ, stroke_rate_hz, strokes

BY_NAME = {kind.name: kind for kind in KINDS}


def variants(thing: str) -> dict[tuple[str, str], Kind]:
    return {(kind.size, kind.speed): kind for kind in KINDS if kind.thing == thing}


class TestKinds:
    def test_every_combination_exists(self) -> None:
        assert len(THINGS) >= 12
        assert len(KINDS) >= 48
        assert {(k.thing, k.size, k.speed) for k in KINDS} == set(
            product(THINGS, ("small", "large"), ("slowly", "quickly"))
        )
        assert len(BY_NAME) == len(KINDS)

    def test_two_thirds_are_seen(self) -> None:
        assert sum(kind.seen for kind in KINDS) == 2 * sum(not kind.seen for kind in KINDS)

    def test_each_word_of_an_unseen_name_occurs_in_seen_names_of_the_same_thing(self) -> None:
        for thing in THINGS:
            seen = [kind for kind in KINDS if kind.thing == thing and kind.seen]
            assert {kind.size for kind in seen} == {"small", "large"}
            assert {kind.speed for kind in seen} == {"slowly", "quickly"}


class TestSounds:
    @pytest.mark.parametrize("thing", THINGS)
    def test_small_things_sound_higher(self, thing: str) -> None:
        def centre_hz(kind: Kind) -> float:
            random = np.random.default_rng(3)
            power = np.abs(np.fft.rfft(strokes(kind, 4, 3.0, random))) ** 2
            return float((power * np.fft.rfftfreq(4 * RATE_HZ, 1 / RATE_HZ)).sum() / power.sum())

        kinds = variants(thing)
        assert centre_hz(kinds["small", "slowly"]) > 1.25 * centre_hz(kinds["large", "slowly"])

    @pytest.mark.parametrize("thing", THINGS)
    def test_quick_things_strike_more_often(self, thing: str) -> None:
        random = np.random.default_rng(3)
        kinds = variants(thing)
        slow, quick = (
            [stroke_rate_hz(kinds[size, speed], random) for size in ("small", "large") for _ in range(20)]
            for speed in ("slowly", "quickly")
        )
        assert min(quick) > 2 * max(slow)
        assert min(slow) > 0.9  # heard in every second; the slowest, a ball, bounces three times per stroke

    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
    def test_each_second_of_an_event_is_audible(self, kind: Kind) -> None:
        random = np.random.default_rng(0)
        sound = strokes(kind, 5, stroke_rate_hz(kind, random), random)
        assert np.abs(sound).max() == pytest.approx(1)
        assert (np.abs(sound.reshape(5, -1)).max(axis=1) > 0.2).all()


class TestScenes:
    def scene(self, shown: str, heard: str = "", seed: int = 5) -> Scene:
        script = Script(shown=(BY_NAME.get(shown),), heard=(BY_NAME.get(heard),))
        return Scene(script, np.random.default_rng(seed))

    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
    def test_each_kind_is_visible(self, kind: Kind) -> None:
        scene = Scene(Script(shown=(kind, None), heard=(None, None)), np.random.default_rng(5))
        changed = np.abs(scene.frame(0.5).astype(int) - scene.frame(1.5)).max(axis=2) > 60
        share = changed.mean()
        assert share > (0.02 if kind.size == "large" else 0.002)

    def test_large_things_are_larger(self) -> None:
        def area(name: str) -> int:
            scene = Scene(Script(shown=(BY_NAME[name], None), heard=(None, None)), np.random.default_rng(5))
            return int((np.abs(scene.frame(0.5).astype(int) - scene.frame(1.5)).max(axis=2) > 60).sum())

        assert area("large clock ticking slowly") > 3 * area("small clock ticking slowly")

    def test_a_seed_gives_the_same_scene(self) -> None:
        one, two = (self.scene("large dog barking slowly", "large dog barking slowly") for _ in range(2))
        assert (one.frame(0.3) == two.frame(0.3)).all()
        assert (one.sound() == two.sound()).all()
        other = self.scene("large dog barking slowly", "large dog barking slowly", seed=6)
        assert (other.frame(0.3) != one.frame(0.3)).any()

    def test_a_silent_thing_is_not_heard(self) -> None:
        loud = self.scene("large drum beating slowly", "large drum beating slowly").sound()
        silent = self.scene("large drum beating slowly").sound()
        assert silent.std() < loud.std()
        assert silent.std() > 0  # every room has noise

    def test_frame_and_sound_shapes(self) -> None:
        scene = self.scene("small tap dripping slowly", "small tap dripping slowly")
        assert scene.frame(0.5).shape == (224, 288, 3)
        assert scene.frame(0.5).dtype == np.uint8
        assert scene.sound().shape == (RATE_HZ,)
        assert np.abs(scene.sound()).max() <= 1


class TestScripts:
    @settings(max_examples=60, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), number=st.integers(0, len(KINDS) - 1), seconds=st.integers(3, 15))
    def test_the_only_event_is_of_the_requested_kind(self, seed: int, number: int, seconds: int) -> None:
        kind = KINDS[number]
        script = write_script(kind, KINDS, np.random.default_rng(seed), seconds)
        assert len(script.shown) == len(script.heard) == len(script.labels) == seconds
        for shown, heard, label in zip(script.shown, script.heard, script.labels, strict=True):
            assert label == int(shown is not None and shown == heard)
            assert not label or shown == kind
            # A distractor is another thing, never another variant of this one.
            assert all(one is None or one == kind or one.thing != kind.thing for one in (shown, heard))

    def test_shares_are_close_to_those_of_ovavebench(self) -> None:
        random = np.random.default_rng(0)
        labels = np.array([write_script(KINDS[7], KINDS, random).labels for _ in range(3000)])
        assert (labels.all(axis=1)).mean() == pytest.approx(0.43, abs=0.03)
        assert (~labels.any(axis=1)).mean() == pytest.approx(0.24, abs=0.03)

    def test_every_distractor_occurs(self) -> None:
        random = np.random.default_rng(0)
        kind = KINDS[7]
        found = set()
        for _ in range(300):
            script = write_script(kind, KINDS, random)
            for shown, heard in zip(script.shown, script.heard, strict=True):
                senses = tuple("it" if one == kind else "another" if one else "none" for one in (shown, heard))
                found.add(senses)
        assert found == {
            ("it", "it"),
            ("it", "none"),
            ("none", "it"),
            ("none", "none"),
            ("it", "another"),
            ("another", "it"),
        }
