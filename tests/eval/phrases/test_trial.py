"""The vocabulary lab: words against recordings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.media_factory import make_clip

from ovavel.eval.datasets.texts import embed_texts
from ovavel.eval.phrases.report import verdict
from ovavel.eval.phrases.trial import Recording, Trial, encode_recording, parse_truth, try_phrases
from ovavel.runtime.backends import HeadOutput, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.cli import main
from ovavel.runtime.errors import MediaError, UsageError, VocabularyError
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score
from ovavel.runtime.results.recording import localize_recording
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Segment

AXES = np.eye(6, dtype=np.float32)
VOCABULARY = Vocabulary(names=("dog", "other"), embeddings=TextEmbeddings.shared(AXES[[0, 5]]))
BELL, DRUM = AXES[1], AXES[2]


def plain_head(audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
    heard, seen = cosine_similarity(audio, text.audio), cosine_similarity(vision, text.vision)
    return HeadOutput(heard, seen, fused_score(heard, seen))


def recording(seconds: Sequence[np.ndarray | None], event: Sequence[bool] | None = None) -> Recording:
    """Each second shows and sounds like one embedding; None: nothing was heard."""
    missing = np.array([second is None for second in seconds])
    said = np.ones(len(seconds), bool) if event is None else np.array(event)
    return Recording(
        name="made.mp4",
        segments=tuple(
            Segment(index=i, start_s=float(i), vision=AXES[3] if second is None else second, audio=second)
            for i, second in enumerate(seconds)
        ),
        event=said & ~missing,
        missing_s=int(missing.sum()),
    )


def trial(recordings: Sequence[Recording], **phrases: np.ndarray) -> Trial:
    return try_phrases(
        recordings, list(phrases), TextEmbeddings.shared(np.stack(list(phrases.values()))), VOCABULARY, plain_head
    )


def test_the_phrase_that_names_the_event_wins() -> None:
    both = (0.6 * BELL + 0.8 * AXES[0]).astype(np.float32)
    found = trial([recording([BELL] * 3 + [AXES[5]] * 2 + [AXES[0]], [True] * 3 + [False] * 3)], drum=DRUM, bell=BELL)
    best, worst = found.phrases
    assert (best.phrase, best.rank, best.won_s, best.event_s, best.elsewhere_s, best.f) == ("bell", 1, 3, 3, 0, 1.0)
    assert best.lead == pytest.approx(1, abs=1e-5)
    assert (worst.phrase, worst.rank, worst.won_s, worst.f) == ("drum", 2, 0, 0.0)
    assert best.clips[0].labels == ("bell",) * 3 + ("other",) * 2 + ("dog",)
    assert found.before == (("other",) * 5 + ("dog",),)
    assert found.works
    assert "'bell', which would win 3 of 3 s" in verdict(found)
    # A name of the vocabulary that is nearer than the phrase: it leads over the background and yet never wins.
    beaten = trial([recording([both] * 2)], bell=BELL).phrases[0]
    assert beaten.won_s == 0
    assert beaten.margin == pytest.approx(0.75, abs=1e-5)
    assert beaten.lead == pytest.approx(-0.25, abs=1e-5)
    assert beaten.rival == "dog"


def test_winning_everywhere_is_not_a_merit() -> None:
    seconds = [BELL] * 2 + [((BELL + DRUM) / np.sqrt(2)).astype(np.float32)] * 6
    found = trial([recording(seconds, [True] * 2 + [False] * 6)], bell=BELL)
    assert (found.phrases[0].won_s, found.phrases[0].elsewhere_s) == (2, 6)
    assert found.phrases[0].f == pytest.approx(0.4)
    assert not found.works
    assert "No phrase works" in verdict(found)
    assert "6 s elsewhere" in verdict(found)


def test_ties_share_a_rank_and_no_match_is_reported() -> None:
    tied = trial([recording([BELL] * 3)], bell=BELL, gong=BELL)
    assert [phrase.rank for phrase in tied.phrases] == [1, 1]
    assert "A tie: 'bell', 'gong'" in verdict(tied)
    none = trial([recording([AXES[0]] * 3)], bell=BELL, drum=DRUM)
    assert not none.works
    assert "none of them would win a second" in verdict(none)
    assert "'dog' is closer" in verdict(none)
    assert "than the background" in verdict(trial([recording([AXES[4]] * 3)], bell=BELL))


def test_a_name_of_the_vocabulary_is_tried_unchanged() -> None:
    phrase = trial([recording([AXES[0]] * 2)], Dog=AXES[4]).phrases[0]
    assert (phrase.in_vocabulary, phrase.label, phrase.won_s) == (True, "dog", 2)
    with pytest.raises(VocabularyError, match="background"):
        trial([recording([AXES[0]])], Other=AXES[4])


def test_seconds_without_a_sense_belong_to_no_name() -> None:
    found = trial([recording([BELL, None, BELL])], bell=BELL)
    assert (found.phrases[0].won_s, found.phrases[0].event_s) == (2, 2)
    assert np.isnan(found.phrases[0].clips[0].lead).tolist() == [False, True, False]
    with pytest.raises(UsageError, match="no second"):
        trial([recording([None, None])], bell=BELL)


@given(
    events=st.lists(st.lists(st.booleans(), min_size=1, max_size=14), min_size=1, max_size=3),
    kinds=st.lists(st.integers(0, 5), min_size=14, max_size=14),
)
def test_every_second_is_counted_once(events: list[list[bool]], kinds: list[int]) -> None:
    recordings = [recording([AXES[kind] for kind in kinds[: len(event)]], event) for event in events]
    if not any(map(any, events)):
        return
    phrase = trial(recordings, bell=BELL).phrases[0]
    truth = [(kind == 1, on) for event in events for kind, on in zip(kinds, event, strict=False)]
    assert phrase.event_s == sum(on for _, on in truth)
    assert phrase.won_s == sum(won and on for won, on in truth)
    assert phrase.elsewhere_s == sum(won and not on for won, on in truth)


def test_truth_is_read() -> None:
    clips = [Path("x/a.mp4"), Path("y/a.mp4"), Path("b=c.mp4")]
    assert parse_truth(["x/a.mp4=3-8,12-15.5", "b=c.mp4=none"], clips) == {
        clips[0]: ((3.0, 8.0), (12.0, 15.5)),
        clips[2]: (),
    }
    wrong = {
        "a.mp4=1-2": "several",
        "d.mp4=1-2": "matches none of the recordings",
        "x/a.mp4": "lacks its =SECONDS",
        "x/a.mp4=5": "START-END",
        "x/a.mp4=": "START-END",
        "x/a.mp4=5-5": "end after its start",
        "x/a.mp4=nan-5": "end after its start",
        "x/a.mp4=1-inf": "end after its start",
    }
    for words, said in wrong.items():
        with pytest.raises(UsageError, match=said):
            parse_truth([words], clips)
    with pytest.raises(UsageError, match="twice"):
        parse_truth(["x/a.mp4=1-2", "x/a.mp4=3-4"], clips)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "a [b].mp4", duration_s=12.0, fps=5)


def test_decisions_are_those_of_the_runtime(exported_bundle: Path, clip: Path) -> None:
    bundle = Bundle.open(exported_bundle)
    backend = open_backend(bundle, device="cpu", threads=1)
    try:
        whole = encode_recording(clip, backend)
        found = try_phrases([whole], ["race car"], embed_texts(bundle, ["race car"]), bundle.vocabulary, backend.head)
        decided = localize_recording(bundle, MediaSource(clip), backend=backend).scores
        spanned = encode_recording(clip, backend, [(0.5, 3.4), (7.6, 9)])
        with pytest.raises(UsageError, match="12 s"):
            encode_recording(clip, backend, [(40, 41)])
    finally:
        backend.close()
    (result,) = found.phrases[0].clips
    assert result.labels == found.before[0] == tuple(s.label for s in decided)
    expected = [s.scores[1] - s.scores[-1] for s in decided]
    np.testing.assert_array_equal(result.margin, np.array(expected, np.float32))
    assert np.flatnonzero(spanned.event).tolist() == [0, 1, 2, 8]


def test_command_prints_and_writes(
    exported_bundle: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lab"
    words = [str(clip), "--phrases", "<b>woof</b>", "a [red] car", "--truth", f"{clip.name}=3-8", "--out", str(out)]
    code = main(["vocab", "try", "--bundle", str(exported_bundle), *words, "--threads", "1", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "a [red] car" in printed
    document = json.loads((out / "vocab-try.json").read_text())
    assert code == (0 if document["works"] else 1)
    assert document["verdict"] in printed
    assert {phrase["phrase"] for phrase in document["phrases"]} == {"<b>woof</b>", "a [red] car"}
    assert sum(document["recordings"][0]["event"]) == 5
    for phrase in document["phrases"]:
        (each,) = phrase["recordings"]
        event = document["recordings"][0]["event"]
        assert phrase["won_s"] == sum(a == phrase["label"] and b for a, b in zip(each["labels"], event, strict=True))
        assert phrase["lead"] == pytest.approx(np.mean(np.array(each["lead"])[event]), abs=1e-4)
    html = (out / "vocab-try.html").read_text()
    assert "&lt;b&gt;woof" in html
    assert "<b>woof" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert Bundle.open(exported_bundle).vocabulary.names == ("dog barking", "race car", "bird chirping", "other")


def test_a_name_can_be_left_out(exported_bundle: Path, clip: Path, tmp_path: Path) -> None:
    every = ["dog barking", "race car", "bird chirping"]
    words = [str(clip), "--phrases", "hound", "--without", *every, "--out", str(tmp_path)]
    main(["vocab", "try", "--bundle", str(exported_bundle), *words, "--threads", "1"])
    document = json.loads((tmp_path / "vocab-try.json").read_text())
    assert set(document["recordings"][0]["labels_before"]) == {"other"}
    assert document["phrases"][0]["rival"] == "other"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which recordings"),
        (["--phrases", "dog"], "which recordings"),
        (["CLIP"], "which phrases"),
        (["gone.mp4", "--phrases", "dog"], "no file gone.mp4"),
        (["FOLDER", "--phrases", "dog"], "holds no media files"),
        (["CLIP", "--phrases", "dog", "Dog"], "same name"),
        (["CLIP", "--phrases", "other"], "background"),
        (["CLIP", "--phrases", "dog", "--without", "other"], "background"),
        (["CLIP", "--phrases", "dog", "--without", "cat"], "not in the vocabulary"),
        (["TEXT", "--phrases", "dog"], "TEXT"),
    ],
)
def test_invalid_arguments_are_refused(
    words: list[str], said: str, exported_bundle: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_media = tmp_path / "TEXT"
    no_media.write_text("no media")
    places = {"CLIP": str(clip), "FOLDER": str(tmp_path), "TEXT": str(no_media)}
    assert main(["vocab", "try", "--bundle", str(exported_bundle), *(places.get(word, word) for word in words)]) > 0
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_words_need_a_text_encoder(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    del bundle.manifest.graphs["text"]
    found = embed_texts(bundle, ["Race  Car", "other"])
    np.testing.assert_array_equal(found.audio, bundle.vocabulary.embeddings.vision[[1, 3]])
    with pytest.raises(VocabularyError, match=r"'hound' and 1 more.*text encoder"):
        embed_texts(bundle, ["race car", "hound", "cat"])


def test_an_empty_recording_is_refused(exported_bundle: Path, tmp_path: Path) -> None:
    short = make_clip(tmp_path / "short.mp4", duration_s=0.3)
    backend = open_backend(Bundle.open(exported_bundle), device="cpu", threads=1)
    try:
        with pytest.raises(MediaError, match="less than half a second"):
            encode_recording(short, backend)
    finally:
        backend.close()


def test_a_recording_that_cannot_be_read_does_not_stop_the_others(
    exported_bundle: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "media", tmp_path / "lab"
    folder.mkdir()
    (folder / "good.mp4").write_bytes(clip.read_bytes())
    (folder / "b\x1b[31md.mp4").write_bytes(b"no media")
    make_clip(folder / "short.mp4", duration_s=0.3)
    words = ["vocab", "try", str(folder), "--bundle", str(exported_bundle), "--phrases", "woof", "--threads", "1"]
    assert main([*words, "--device", "cpu", "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert r"b\x1b[31md.mp4 cannot be opened" in said.err
    assert "short.mp4 holds less than half a second" in said.err
    assert "\x1b" not in said.err + said.out
    document = json.loads((out / "vocab-try.json").read_text())
    assert [Path(each["path"]).name for each in document["recordings"]] == ["good.mp4"]
    (folder / "good.mp4").unlink()
    assert main([*words, "--device", "cpu"]) == 1
    assert "nor can the other 1" in capsys.readouterr().err
