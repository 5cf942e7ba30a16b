"""A picture or sound that has not changed keeps its embedding; a change is noticed, however slow or small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ovavel.runtime.economy.still import AUDIT_EVERY, PATCH, Still, Threshold, difference, signature

SIDE = 56
BUDGET = 0.002
NOISE = 0.05
Frame = NDArray[np.float32]

PROJECTION = np.random.default_rng(0).standard_normal((16, 3 * (SIDE // PATCH) ** 2))


def scenery(seed: int) -> NDArray[np.floating]:
    """Surfaces of many colours, with some texture."""
    rng = np.random.default_rng(seed)
    surfaces = np.kron(rng.standard_normal((3, SIDE // 7, SIDE // 7)), np.ones((7, 7)))
    return surfaces + 0.1 * rng.standard_normal((3, SIDE, SIDE))


SCENE = scenery(1)


def embed(frame: Frame) -> Frame:
    """An encoder that sees the mean colour of every patch, and no noise to speak of."""
    patches = frame.reshape(3, SIDE // PATCH, PATCH, SIDE // PATCH, PATCH).mean(axis=(2, 4))
    vector = PROJECTION @ patches.reshape(-1)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


class Encoder:
    """Counts what it encodes."""

    def __init__(self) -> None:
        self.encoded = 0

    def __call__(self, frames: Sequence[Frame]) -> list[Frame]:
        self.encoded += len(frames)
        return [embed(frame) for frame in frames]


def camera(seconds: int, scene: Callable[[int], NDArray[np.floating]], seed: int = 1) -> Iterator[Frame]:
    noise = np.random.default_rng(seed)
    for second in range(seconds):
        yield (scene(second) + NOISE * noise.standard_normal((3, SIDE, SIDE))).astype(np.float32)


def still_camera(_: int) -> NDArray[np.floating]:
    return SCENE


def drifts(frames: Iterator[Frame], budget: float = BUDGET) -> tuple[list[float], Encoder, Still]:
    """1 - cosine of what each picture is given and what it would have."""
    encoder = Encoder()
    still = Still(encoder, budget)
    found = [max(0.0, 1 - float(still.embed([frame])[0].embedding @ embed(frame))) for frame in frames]
    return found, encoder, still


def test_a_still_camera_is_encoded_once_in_so_many_pictures() -> None:
    found, encoder, still = drifts(camera(1200, still_camera))
    assert encoder.encoded < 200, "what was needed to learn its noise, some of the noisiest, and the audits"
    assert encoder.encoded >= 1100 // AUDIT_EVERY
    assert np.quantile(found, 0.99) <= BUDGET
    assert still.threshold.value > 0


def test_nothing_is_reused_before_the_noise_is_known() -> None:
    found, encoder, _ = drifts(camera(20, still_camera))
    assert encoder.encoded == 20
    assert max(found) < 1e-6


@pytest.mark.parametrize("hours", [1, 4])
def test_a_slow_fade_is_noticed(hours: int) -> None:
    """Half of the scene turns into another one, by less each second than the noise."""
    other = scenery(9)
    seconds = hours * 900

    def fade(second: int) -> NDArray[np.floating]:
        share = max(0.0, (second - 100) / seconds)
        return (1 - share) * SCENE + share * other

    found, encoder, _ = drifts(camera(seconds + 100, fade))
    assert embed(SCENE.astype(np.float32)) @ embed(other.astype(np.float32)) < 0.5
    assert np.quantile(found, 0.99) <= 2 * BUDGET
    assert max(found) < 10 * BUDGET
    assert encoder.encoded < seconds


def test_pictures_are_compared_with_the_last_one_that_was_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is like the one before it, and none goes further than the threshold from what it is taken for."""
    monkeypatch.setattr(Threshold, "value", 0.2)
    monkeypatch.setattr("ovavel.runtime.economy.still.AUDIT_EVERY", 10**9)
    still, level, levels = Still(Encoder(), BUDGET), 0.0, []
    for _ in range(200):
        level += 0.013
        if still.embed([(SCENE + level).astype(np.float32)])[0].encoded:
            levels.append(level)
    assert len(levels) > 10
    assert max(np.diff(levels)) < 0.2 + 2 * 0.013


def test_something_small_that_comes_into_view_is_encoded_at_once() -> None:
    def visitor(second: int) -> NDArray[np.floating]:
        scene = SCENE.copy()
        if second >= 300:
            scene[:, 20:30, 30:40] += 1.0  # 3 % of the picture
        return scene

    encoder = Encoder()
    still = Still(encoder, BUDGET)
    encoded = [still.embed([frame])[0].encoded for frame in camera(310, visitor)]
    assert encoded[300]
    assert not all(encoded[200:300])


def test_an_audit_beyond_the_budget_tightens_the_threshold_at_once() -> None:
    threshold = Threshold(BUDGET)
    for change in np.linspace(0.01, 0.02, 60):
        threshold.learn(float(change), 0.0)
    before = threshold.value
    assert 0.015 < before < 0.02
    assert threshold.audit(0.015, BUDGET)
    assert not threshold.audit(0.015, 2 * BUDGET)
    assert threshold.value <= 0.9 * 0.015
    for _ in range(200):
        assert threshold.audit(0.012, 0.0)
    assert threshold.value > 0.9 * 0.015, "it may grow again with audits that find nothing"


def test_audits_report_the_drift_and_whether_it_is_within_the_budget() -> None:
    still = Still(Encoder(), BUDGET)
    found = [still.embed([frame])[0] for frame in camera(600, still_camera)]
    audits = [each for each in found if each.drift is not None]
    reused = sum(not each.encoded for each in found)
    assert len(audits) == (reused + len(audits)) // AUDIT_EVERY
    assert all(each.encoded for each in audits)


@settings(max_examples=10)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=30))
def test_what_is_known_decides_and_not_how_many_come_at_once(sizes: list[int]) -> None:
    """Replayed with the same batches it is the same; no batch makes a picture keep a stale embedding."""
    frames = list(camera(sum(sizes), still_camera))
    runs = []
    for _ in range(2):
        still, at, found = Still(Encoder(), BUDGET), 0, []
        for size in sizes:
            found += [each.encoded for each in still.embed(frames[at : at + size])]
            at += size
        runs.append(found)
    assert runs[0] == runs[1]
    assert runs[0][0]


def test_the_difference_is_that_of_the_patch_that_changed_most() -> None:
    one = np.zeros((3, SIDE, SIDE), np.float32)
    other = one.copy()
    other[:, 14:28, 14:28] = 1
    assert difference(signature(one), signature(one)) == 0
    here = difference(signature(one), signature(other))
    assert here > 0.8
    assert np.abs(signature(one) - signature(other)).mean() < 0.1, "on average it is hardly there"
    brighter = one + np.float32(0.25)
    assert difference(signature(one), signature(brighter)) == pytest.approx(0.25)


def spectrograms(seconds: int, bark_at: int) -> Iterator[Frame]:
    """Log-mels of steady noise, with a tenth of a second of something else in one of them."""
    noise = np.random.default_rng(3)
    for second in range(seconds):
        log_mel = noise.standard_normal((1, SIDE, 2 * SIDE)).astype(np.float32)
        if second == bark_at:
            log_mel[:, 20:40, 60:71] += 4
        yield log_mel


def embed_sound(log_mel: Frame) -> Frame:
    means = 1 + log_mel.reshape(SIDE // PATCH, PATCH, 2 * SIDE // PATCH, PATCH).mean(axis=(1, 3)).ravel()
    return np.asarray(means / np.linalg.norm(means), np.float32)


def test_a_steady_noise_is_not_encoded_again_and_a_short_bark_is() -> None:
    still = Still(lambda sounds: [embed_sound(each) for each in sounds], 0.02)
    encoded = [still.embed([each])[0].encoded for each in spectrograms(200, bark_at=150)]
    assert sum(encoded[40:150]) < 20
    assert encoded[150]
    assert encoded[151], "it is over, which is as much of a change"


def test_another_colour_of_the_same_brightness_is_a_change() -> None:
    red, blue = np.zeros((2, 3, SIDE, SIDE), np.float32)
    red[0], blue[2] = 1, 1
    still = Still(Encoder(), BUDGET)
    encoded = [still.embed([frame])[0].encoded for frame in (red, red, blue, blue)]
    assert encoded == [True, False, True, False]
