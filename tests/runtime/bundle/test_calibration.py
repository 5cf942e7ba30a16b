from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import OTHER_NAMES, Calibration, names_fingerprint
from ovavel.runtime.bundle.manifest import Manifest
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.cli import main
from ovavel.runtime.errors import BundleError, UsageError
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score, probabilities
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.pipeline.tracker import EventRules, EventTracker
from ovavel.runtime.types import Segment

NAMES = ("dog", "car", "bell", "other")
CALIBRATION = Calibration(
    temperature=0.2,
    on=0.3,
    off=0.1,
    ece_before=0.4,
    ece_after=0.05,
    segments=100,
    dataset="ab" * 32,
    names=names_fingerprint(NAMES),
)
DEMO = Path(__file__).parents[3] / "eval" / "demo" / "assets"
TEXT = np.eye(4, 8, dtype=np.float32)
VOCABULARY = Vocabulary(names=NAMES, embeddings=TextEmbeddings.shared(TEXT))


def head(audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
    similarities = [cosine_similarity(x, text.vision) for x in (audio, vision)]
    return HeadOutput(*similarities, fused_score(*similarities))


def segment(index: int, *, vision: bool = True, background: float = 0.0) -> Segment:
    embedding = TEXT[0] + background * TEXT[3] + 0.1
    embedding = (embedding / np.linalg.norm(embedding)).astype(np.float32)
    return Segment(index=index, start_s=float(index), vision=embedding if vision else None, audio=embedding)


def test_probabilities_are_a_softmax_of_scores_over_temperature() -> None:
    scores = np.array([[1.0, 0.5, 0.0]], np.float32)
    np.testing.assert_allclose(probabilities(scores, 0.5), [np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()])


@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(1e-6, 1e6),
)
def test_probabilities_sum_to_one_and_keep_the_order(rows: list[list[float]], temperature: float) -> None:
    scores = np.array(rows, np.float32)
    shares = probabilities(scores, temperature)
    np.testing.assert_allclose(shares.sum(axis=-1), 1)
    best = scores.argmax(axis=-1)
    assert (np.take_along_axis(shares, best[:, None], 1)[:, 0] == shares.max(axis=-1)).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.inf, np.nan])
def test_a_temperature_that_cannot_be_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        probabilities(np.zeros(3, np.float32), temperature)


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0}, {"on": 1.1}, {"off": 0.5}, {"segments": 0}, {"ece_after": -0.1}, {"kelvin": 1}, {"on": None}],
)
def test_a_calibration_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    data = msgspec.json.encode({**msgspec.to_builtins(CALIBRATION), **change})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(data, type=Calibration)


def test_a_calibrated_localizer_reports_probabilities_and_decides_as_before() -> None:
    plain, calibrated = Localizer(head, VOCABULARY, lag=0), Localizer(head, VOCABULARY, lag=0, calibration=CALIBRATION)
    one, other = plain.push(segment(0))[0], calibrated.push(segment(0))[0]
    assert one.probability is None
    assert other.probability == pytest.approx(float(probabilities(one.scores, 0.2).max()))
    assert (one.label, one.score) == (other.label, other.score)
    assert calibrated.push(segment(1, vision=False))[0].probability is None


def test_an_event_reports_its_highest_probability() -> None:
    localizer = Localizer(head, VOCABULARY, lag=0, calibration=CALIBRATION)
    tracker = EventTracker("other", EventRules(start_margin=0, keep_margin=0))
    scores = [localizer.push(segment(i, background=b))[0] for i, b in enumerate((0.5, 0.0, 0.7))]
    news = [event for s in scores for event in tracker.push([s])] + tracker.close()
    assert len({s.probability for s in scores}) == 3
    assert news[-1].state == "end"
    assert news[-1].peak_probability == max(s.probability for s in scores)


def test_a_second_without_a_sense_leaves_the_probability_of_its_event_alone() -> None:
    localizer = Localizer(head, VOCABULARY, lag=0, calibration=CALIBRATION)
    tracker = EventTracker("other", calibration=CALIBRATION)
    news = []
    for s in (segment(0), segment(1, vision=False), segment(2)):
        news += tracker.push(localizer.push(s))
    assert [event.end_s for event in [*news, *tracker.close()] if event.state == "end"] == [3.0]
    assert all(event.peak_probability is not None for event in news)


def test_margins_are_the_users_then_the_bundles_then_none() -> None:
    assert EventRules().margins() == (0, 0)
    assert EventRules().margins(CALIBRATION) == (0.3, 0.1)
    assert EventRules(start_margin=0.0, keep_margin=0.0).margins(CALIBRATION) == (0, 0)
    assert EventRules(start_margin=0.5).margins(CALIBRATION) == (0.5, 0.1)
    assert EventRules(keep_margin=0.2).margins(CALIBRATION) == (0.3, 0.2)


@pytest.mark.parametrize(
    ("rules", "calibration"), [({"keep_margin": 0.4}, CALIBRATION), ({"start_margin": 0.05}, CALIBRATION)]
)
def test_one_margin_that_does_not_go_with_the_bundles_other_is_refused(
    rules: dict[str, float], calibration: Calibration
) -> None:
    with pytest.raises(UsageError, match="give both"):
        EventTracker("other", EventRules(**rules), calibration=calibration)


def test_margins_of_the_calibration_decide_which_events_there_are() -> None:
    localizer = Localizer(head, VOCABULARY, lag=0)
    narrow = localizer.push(segment(0, background=0.9))[0]
    assert 0 < narrow.margin < CALIBRATION.on
    assert EventTracker("other").push([narrow])
    assert not EventTracker("other", calibration=CALIBRATION).push([narrow])


def test_a_bundle_keeps_its_calibration(tiny_bundle: Path) -> None:
    before = (tiny_bundle / "manifest.json").read_bytes()
    bundle = Bundle.open(tiny_bundle)
    assert b"calibration" not in before
    saved = bundle.save_calibration(CALIBRATION)
    again = Bundle.open(tiny_bundle)
    assert again.manifest == saved.manifest
    assert again.manifest.calibration == CALIBRATION
    assert again.sha256 == saved.sha256 == hashlib.sha256((tiny_bundle / "manifest.json").read_bytes()).hexdigest()
    # A vocabulary may change afterwards, and the calibration stays; without it the manifest is what it was.
    renamed = again.save_vocabulary(again.vocabulary.removed(("race car",)))
    assert renamed.manifest.calibration == CALIBRATION
    Bundle.open(tiny_bundle).save_vocabulary(bundle.vocabulary).save_calibration(None)
    assert (tiny_bundle / "manifest.json").read_bytes() == before


def test_a_calibration_of_impossible_margins_is_damage(tiny_bundle: Path) -> None:
    Bundle.open(tiny_bundle).save_calibration(CALIBRATION)
    content = json.loads((tiny_bundle / "manifest.json").read_bytes())
    assert Manifest.decode(json.dumps(content).encode(), where="here").calibration == CALIBRATION
    bad = {**content, "calibration": {**content["calibration"], "on": 0.0}}
    with pytest.raises(BundleError, match="damaged"):
        Manifest.decode(json.dumps(bad).encode(), where="here")


def test_a_bundle_changed_meanwhile_is_not_overwritten(tiny_bundle: Path) -> None:
    one, other = Bundle.open(tiny_bundle), Bundle.open(tiny_bundle)
    one.save_calibration(CALIBRATION)
    with pytest.raises(BundleError, match="changed by somebody else"):
        other.save_calibration(replace(CALIBRATION, temperature=3.0))
    assert Bundle.open(tiny_bundle).manifest.calibration == CALIBRATION


def test_a_change_of_the_vocabulary_that_was_cut_short_is_not_lost(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    changed = bundle.save_vocabulary(bundle.vocabulary.removed(["race car"]))
    (tiny_bundle / "manifest.json").replace(tiny_bundle / "manifest.json.new")
    (tiny_bundle / "manifest.json").write_bytes(bundle.manifest.encode())
    with pytest.raises(BundleError, match="try again"):
        bundle.save_calibration(CALIBRATION)
    again = Bundle.open(tiny_bundle)
    assert again.sha256 == changed.sha256
    assert again.save_calibration(CALIBRATION).manifest.calibration == CALIBRATION


def test_other_names_have_no_probabilities() -> None:
    fitted = replace(CALIBRATION, names=names_fingerprint(("bell", "car", "dog", "other")))
    assert fitted.fits(VOCABULARY), "their order means nothing"
    localizer = Localizer(head, VOCABULARY, lag=0, calibration=fitted)
    assert localizer.push(segment(0))[0].probability is not None
    localizer.vocabulary = VOCABULARY.removed(["bell"])
    assert localizer.push(segment(1))[0].probability is None
    localizer.vocabulary = VOCABULARY
    assert localizer.push(segment(2))[-1].probability is not None
    assert not fitted.fits(Vocabulary(names=("bell", "car", "other", "dog"), embeddings=VOCABULARY.embeddings)), (
        "another background"
    )


def test_other_texts_of_the_background_have_no_probabilities() -> None:
    rows = TextEmbeddings.shared(np.eye(8, dtype=np.float32)[4:6])
    silent = VOCABULARY.background_added(["silence", "an empty room"], rows)
    swapped = VOCABULARY.background_added(["an empty room", "silence"], rows[::-1])
    fitted = replace(CALIBRATION, names=names_fingerprint(silent.names, silent.background_texts))
    assert [fitted.fits(each) for each in (silent, swapped, VOCABULARY)] == [True, True, False]
    localizer = Localizer(head, VOCABULARY, lag=0, calibration=CALIBRATION)
    assert localizer.push(segment(0))[0].probability is not None
    localizer.vocabulary = silent
    assert localizer.push(segment(1))[0].probability is None


def test_after_a_name_is_added_commands_show_no_probability_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle_path = tmp_path / "bundle"
    shutil.copytree(DEMO / "bundle", bundle_path)
    bundle = Bundle.open(bundle_path)
    assert bundle.manifest.calibration
    localize = ["localize", str(DEMO / "clip.mp4"), "--bundle", str(bundle_path), "--device", "cpu"]
    live = ["live", str(DEMO / "clip.mp4"), "--bundle", str(bundle_path), "--device", "cpu", "--view", "lines"]
    assert main(localize) == 0
    reported = capsys.readouterr().out
    assert "probability" in reported
    assert OTHER_NAMES not in reported
    assert main(["vocab", "add", "--bundle", str(bundle_path), "small cat purring slowly"]) == 0
    assert OTHER_NAMES in capsys.readouterr().out
    for command in (localize, live):
        assert main(command) == 0
        reported = capsys.readouterr().out
        assert OTHER_NAMES in reported
        assert "probability" not in reported
    assert main(["vocab", "remove", "--bundle", str(bundle_path), "small cat purring slowly"]) == 0
    assert OTHER_NAMES not in capsys.readouterr().out
    assert main(localize) == 0
    assert "probability" in capsys.readouterr().out
