"""A bundle on OV-AVEBench, from media and from a feature cache."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from support.encoders import encoders

from ovavel.eval.accuracy.html import to_html
from ovavel.eval.accuracy.metrics import score_agreement, score_clips
from ovavel.eval.accuracy.protocols import decide, fused_labels, score_rows
from ovavel.eval.accuracy.report import class_results, clip_scores, confusion, note, table_rows, to_csv, to_json
from ovavel.eval.accuracy.score import Report, Result, score_protocol
from ovavel.eval.datasets.encode import Encoded, encode_clips, load_cached
from ovavel.eval.datasets.feature_cache import FeatureCache, Features
from ovavel.eval.datasets.ovavebench import Clip, OVAVEBench
from ovavel.eval.datasets.splits import Split
from ovavel.eval.datasets.texts import embed_texts
from ovavel.runtime.backends import Backend, HeadOutput, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.pipeline.fusion import agree_clip, cosine_similarity, fused_score
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.types import Segment

pytestmark = pytest.mark.slow

STRANGE = "engine <b>idling [red]"
NAMES = ("dog barking", "race car", "bird chirping", STRANGE, "other")
SEEN = NAMES[:2]


def write_dataset(root: Path) -> Path:
    """Write two clips a class for the test split and one for val; of the test clips four are broken."""
    rng = np.random.default_rng(0)
    rows, labels = [], {}
    for split, each in (("train", 1), ("val", 1), ("test", 2)):
        for c, name in enumerate(NAMES[:-1]):
            for n in range(each):
                clip = f"{split}{c}{n}"
                kind = "close" if name in SEEN else "open"
                if split == "train" and kind == "open":
                    continue
                rows.append((split, name, kind, clip))
                event = [0] * 10 if n else [int(start <= t < start + 5) for start in [c] for t in range(10)]
                labels[clip] = {"category": name, "label": json.dumps(event)}
                pictures = root / split / "video" / name / clip
                pictures.mkdir(parents=True)
                for t in range(10):
                    noise = rng.integers(0, 256, (9, 12, 3), np.uint8)
                    Image.fromarray(np.kron(noise, np.ones((8, 8, 1), np.uint8))).save(pictures / f"{t:02}.jpg")
                sound = root / split / "audio" / name / f"{clip}.wav"
                sound.parent.mkdir(parents=True, exist_ok=True)
                with wave.open(str(sound), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(16_000)
                    file.writeframes(rng.integers(-9000, 9000, 160_000).astype("<i2").tobytes())
    with (root / "ovave_dataset_meta.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("split", "cls_name", "cls_type", "vid_name"), *rows])
    labels["test31"]["label"] = "[1, 2]"
    (root / "released_ovavel_dataset_anno.json").write_text(json.dumps(labels, indent=4))
    (root / "ovave_total_close_open_categories.csv").write_text("\n".join(NAMES))
    (root / "ovave_train_close_categories.csv").write_text("\n".join((*SEEN, NAMES[-1])))
    shutil.copy(root / "ovave_dataset_meta.csv", root / "ovave_trainratio0.25_meta.csv")
    (root / "test/video/dog barking/test01/03.jpg").unlink()
    (root / "test/audio/race car/test11.wav").write_bytes(b"no wave")
    shutil.rmtree(root / "test/video/bird chirping/test20")
    return root


BROKEN = {"test01", "test11", "test20", "test31"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("ovave"))


@pytest.fixture(scope="module")
def bundle(exported_bundle: Path) -> Bundle:
    return Bundle.open(exported_bundle)


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> Iterator[Backend]:
    opened = open_backend(bundle, device="cpu", threads=1)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def encoded(data: Path, backend: Backend) -> Encoded:
    dataset = OVAVEBench.open(data)
    return encode_clips(dataset, dataset.select("test"), backend)


@pytest.fixture(scope="module")
def text(bundle: Bundle) -> TextEmbeddings:
    return embed_texts(bundle, NAMES)


def test_every_clip_is_accounted_for(encoded: Encoded, data: Path) -> None:
    features, damaged = encoded
    assert {record.name for record in damaged} == {clip.name for clip in features.damaged} == BROKEN
    clips = OVAVEBench.open(data).select("test")
    assert [clip.name for clip in features.clips] == [clip.name for clip in clips if clip.name not in BROKEN]
    assert features.audio.shape == features.vision.shape == (4, 10, 32)
    assert all(record.kind and record.name in record.message for record in damaged)


def test_a_batch_decides_as_the_localizer(
    encoded: Encoded, text: TextEmbeddings, backend: Backend, bundle: Bundle
) -> None:
    features = encoded.features
    localizer = Localizer(backend.head, Vocabulary(names=NAMES, embeddings=text))
    output = decide(backend.head, features.audio, features.vision, text)
    labels = fused_labels(output.score)
    for n in range(len(features.clips)):
        clip = zip(features.audio[n], features.vision[n], strict=True)
        segments = [Segment(index=t, start_s=float(t), vision=v, audio=a) for t, (a, v) in enumerate(clip)]
        for t, scores in enumerate(localizer.score(segments)):
            assert scores.label == NAMES[labels[n, t]]
            np.testing.assert_allclose(scores.scores, output.score[n, t], atol=1e-5)
    assert bundle.vocabulary.names != NAMES  # so the text encoder had its part


def silent_head(audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
    """What is seen is the opposite of what is heard: no class ever has a positive product."""
    heard = np.abs(cosine_similarity(audio, text.audio))
    return HeadOutput(heard, -heard, fused_score(heard, -heard))


def replace_clips(features: Features, count: int) -> Features:
    """The first `count` clips."""
    return Features(
        clips=features.clips[:count], audio=features.audio[:count], vision=features.vision[:count], damaged=()
    )


def split_of(features: Features, truth: np.ndarray) -> Split:
    return Split(
        name="test", clips=features.clips, audio=features.audio, vision=features.vision, truth=truth, damaged=()
    )


def test_no_evidence_is_background_in_both(encoded: Encoded, text: TextEmbeddings) -> None:
    features = encoded.features
    truth = np.zeros((len(features.clips), 10), np.intp)
    result = score_protocol("fused", split_of(features, truth), silent_head, text)
    assert (result.labels == len(NAMES) - 1).all()
    segments = [
        Segment(index=t, start_s=float(t), vision=features.vision[0, t], audio=features.audio[0, t]) for t in range(10)
    ]
    scores = Localizer(silent_head, Vocabulary(names=NAMES, embeddings=text)).score(segments)
    assert {each.label for each in scores} == {"other"}


def test_agreement_asks_the_embeddings_as_they_are(encoded: Encoded, text: TextEmbeddings) -> None:
    features = encoded.features
    truth = np.random.default_rng(0).integers(0, 5, (4, 10))

    def no_head(*_: np.ndarray) -> HeadOutput:
        raise AssertionError("training-free")

    for protocol, names in (("agreement", 5), ("agreement-without-other", 4)):
        vision, audio = ((each @ text.vision[:names].T).argmax(-1) for each in (features.vision, features.audio))
        result = score_protocol(protocol, split_of(features, truth), no_head, text)
        np.testing.assert_array_equal(result.labels, agree_clip(vision, audio, 4))
        assert result.rows.total == score_agreement(vision, audio, truth, 5)
        keep = np.array([True, False, True, False])
        assert result.score(keep, truth, 5) == score_agreement(vision[keep], audio[keep], truth[keep], 5)


def write_cache(root: Path, dataset: OVAVEBench, bundle: Bundle, encoded: Encoded, text: TextEmbeddings) -> Path:
    """Write a cache of the test split in one shard."""
    from ovavel.eval.datasets.feature_cache import CACHE, TEXT, CacheInfo, ClipRecord, Damage, ShardIndex, shard_names

    clips = dataset.select("test")
    damage = {record.name: Damage(kind=record.kind, message=record.message) for record in encoded.damaged}
    info = CacheInfo(
        model="tiny",
        weights_sha256=bundle.manifest.model.weights_sha256,
        graphs_sha256=None,
        tokenizer_sha256="0" * 64,
        backend="onnxruntime",
        device="cpu",
        precision="fp32",
        encoders=encoders(32),
        dataset_fingerprint=dataset.fingerprint,
        shard_clips=100,
        names=dataset.names,
        clips={"test": len(clips)},
    )
    folder = root / info.fingerprint[:16]
    folder.mkdir(parents=True)
    array, index = shard_names("test", 0)
    (folder / TEXT).write_bytes(text.encode())
    np.save(folder / array, np.concatenate([encoded.features.audio, encoded.features.vision], axis=-1))
    shard = ShardIndex(
        split="test",
        array_sha256=hashlib.sha256((folder / array).read_bytes()).hexdigest(),
        clips=tuple(
            ClipRecord(name=clip.name, bytes=1, sha256="0" * 64, damage=damage.get(clip.name)) for clip in clips
        ),
    )
    (folder / index).write_bytes(msgspec.json.encode(shard))
    (folder / CACHE).write_bytes(msgspec.json.encode(info))
    return folder


@pytest.fixture(scope="module")
def cache(
    tmp_path_factory: pytest.TempPathFactory, data: Path, bundle: Bundle, encoded: Encoded, text: TextEmbeddings
) -> Path:
    return write_cache(tmp_path_factory.mktemp("features"), OVAVEBench.open(data), bundle, encoded, text)


def test_media_and_cache_give_the_same_report(
    data: Path,
    exported_bundle: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: TextEmbeddings,
) -> None:
    common = ["--data", str(data), "--bundle", str(exported_bundle), "--device", "cpu", "--threads", "1"]
    assert main(["eval", "score", *common, "--out", str(tmp_path / "media")]) == 0
    printed = capsys.readouterr().out
    assert main(["eval", "score", *common, "--features", str(cache.parent), "--out", str(tmp_path / "cache")]) == 0
    ours, cached = (json.loads((tmp_path / kind / "ovave-test.json").read_text()) for kind in ("media", "cache"))
    assert ours["results"] == cached["results"]
    assert ours["ran"].startswith("The bundle's own encoders and head ran over the media: onnxruntime")
    assert cached["ran"].startswith("The bundle's encoders did not run: the embeddings are those of the cache")
    assert "by onnxruntime in fp32 on cpu. Only the head ran here: onnxruntime" in cached["ran"]
    assert "encoders did not run" in (tmp_path / "cache/ovave-test.html").read_text()
    assert ours["ran"] in printed
    # The intervals are beside the scores, and in the CSV as everywhere.
    lines = list(csv.DictReader((tmp_path / "media/ovave-test.csv").read_text().splitlines()))
    assert len(lines) == 3 * 12
    for line in lines:
        result = next(each for each in ours["results"] if each["method"] == line["method"])
        low, high = result["intervals"][line["clips"]][line["measure"]]
        assert float(line["value"]) == pytest.approx(result[line["clips"]][line["measure"]])
        assert (float(line["low"]), float(line["high"])) == (low, high)
        assert low - 1e-9 <= float(line["value"]) <= high + 1e-9
    assert ours["intervals"] == {"level": 0.95, "resamples": 1000, "seed": 0}
    assert ours["clips"] == cached["clips"]
    assert ours["dataset"] == cached["dataset"]
    assert (ours["features"], cached["features"]["info"]["backend"]) == (None, "onnxruntime")
    assert ours["bundle"]["sha256"] == Bundle.open(exported_bundle).sha256
    # Every clip is in the scores or among the damaged, in all three places.
    assert (ours["dataset"]["clips"], ours["dataset"]["scored"], ours["dataset"]["damaged"]["count"]) == (8, 4, 4)
    assert sum(ours["dataset"]["damaged"]["kinds"].values()) == 4
    assert {clip["name"] for clip in ours["dataset"]["damaged"]["clips"]} == BROKEN
    assert "4 of 8 clips; 4 damaged" in printed
    html = (tmp_path / "media/ovave-test.html").read_text()
    for name in BROKEN:
        assert name in html
        assert name in printed
    # The scores are those of the decisions that are written down.
    truth, decided = (np.array([clip[key] for clip in ours["clips"]]) for key in ("truth", "decided"))
    total = score_clips(decided, truth, 5)
    assert ours["results"][0]["total"] == pytest.approx(total._asdict())
    assert np.mean([clip["avg"] for clip in ours["clips"]]) == pytest.approx(total.avg)
    assert [each["protocol"] for each in ours["results"]] == ["fused", "agreement", "agreement-without-other"]
    seen = np.array([clip["seen"] for clip in ours["clips"]])
    assert ours["results"][0]["unseen"] == pytest.approx(score_clips(decided[~seen], truth[~seen], 5)._asdict())
    # Strange names are text wherever they stand.
    assert "engine &lt;b&gt;idling" in html
    assert "<b>idling" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert "No published figures" in printed
    assert "Video-LLaMA2" not in printed


def random_report(encoded: Encoded, bundle: Bundle, backend: Backend, data: Path) -> Report:
    truth = OVAVEBench.open(data).truth(encoded.features.clips)
    labels = np.random.default_rng(0).integers(0, len(NAMES), truth.shape)
    seen = np.array([clip.seen for clip in encoded.features.clips])
    rows = score_rows(labels, truth, seen, len(NAMES))
    result = Result(protocol="fused", labels=labels, senses=None, rows=rows)
    return Report(
        root="ovave",
        split="test",
        dataset_fingerprint="0" * 64,
        names=NAMES,
        clips=encoded.features.clips,
        damaged=encoded.damaged,
        truth=truth,
        results=(result,),
        bundle=bundle,
        backend=backend.info,
        cache=None,
    )


def test_details_add_up(encoded: Encoded, bundle: Bundle, backend: Backend, data: Path) -> None:
    made = random_report(encoded, bundle, backend, data)
    counts = confusion(made)
    assert counts.sum() == 40
    assert np.trace(counts) / 40 == pytest.approx(made.results[0].rows.total.acc)
    classes = class_results(made)
    assert [(each.name, each.clips) for each in classes] == [(NAMES[0], 1), (NAMES[1], 1), (NAMES[2], 1), (STRANGE, 1)]
    mean = sum(each.clips * each.scores.avg for each in classes) / 4
    assert mean == pytest.approx(made.results[0].rows.total.avg)
    assert clip_scores(made)[0].avg == pytest.approx(classes[0].scores.avg)


def test_published_rows_stand_beside_their_own_split_only(encoded: Encoded, bundle: Bundle, backend: Backend) -> None:
    rng = np.random.default_rng(0)
    names = (*(f"class {c}" for c in range(67)), "other")
    clips = tuple(
        Clip(split="test", name=f"{n}", category=names[n % 67], seen=n % 67 < 46, labels=(1,) * 10) for n in range(5819)
    )
    embeddings = rng.standard_normal((2, 1, 10, 8), np.float32).repeat(len(clips), axis=1)
    features = Features(clips=clips, audio=embeddings[0], vision=embeddings[1], damaged=())
    truth = np.array([[names.index(clip.category)] * 10 for clip in clips])
    text = TextEmbeddings.shared(rng.standard_normal((68, 8), np.float32))
    result = score_protocol("agreement", split_of(features, truth), backend.head, text)
    whole = Report(
        root="ovave",
        split="test",
        dataset_fingerprint="0" * 64,
        names=names,
        clips=clips,
        damaged=encoded.damaged[:1],
        truth=truth,
        results=(result,),
        bundle=bundle,
        backend=backend.info,
        cache=None,
    )
    assert whole.as_published
    rows = table_rows(whole)
    assert [row[0] for row in rows][-2:] == ["fine-tuned", "ovavel agreement"]
    assert " ".join(rows[-2][1:]) == "72.5 61.8 54.5 62.9 64.9 55.0 47.5 55.8 67.1 56.9 49.5 57.8"
    assert whole.counted.startswith("5819 of 5820 clips; 1 damaged: 1 ")
    html = to_html(whole).decode()
    assert "MM-Pyramid" in html
    assert len(html) < 3_000_000
    assert "published figures on this split" in note(whole)
    assert "Table 2" in note(whole)
    assert b"MM-Pyramid,yes,unseen,avg,0.299,," in to_csv(whole)
    # Fifteen of 5 820 clips are no measurement of the test split.
    few = replace(
        whole,
        clips=clips[:15],
        truth=truth[:15],
        damaged=encoded.damaged[:1] * 5805,
        results=(score_protocol("agreement", split_of(replace_clips(features, 15), truth[:15]), backend.head, text),),
    )
    assert not few.as_published
    assert [row[0] for row in table_rows(few)] == ["ovavel agreement"]
    assert "WARNING: 5805 of the 5820 clips of test are damaged" in note(few)
    assert "MM-Pyramid" not in to_html(few).decode() + to_csv(few).decode() + to_json(few).decode()
    assert 'class="warning">WARNING' in to_html(few).decode()


def test_another_dataset_or_other_weights_are_refused(cache: Path, data: Path, bundle: Bundle, tmp_path: Path) -> None:
    dataset, opened = OVAVEBench.open(data), FeatureCache.open(cache)
    clips = dataset.select("test")
    with pytest.raises(DatasetError, match="val"):
        load_cached(opened, dataset, bundle, dataset.select("val"))
    for field in ("weights_sha256", "dataset_fingerprint"):
        other = tmp_path / field
        shutil.copytree(cache, other)
        info = json.loads((cache / "cache.json").read_text()) | {field: "1" * 64}
        (other / "cache.json").write_text(json.dumps(info))
        with pytest.raises(DatasetError, match="weights" if field == "weights_sha256" else "other annotations"):
            load_cached(FeatureCache.open(other), dataset, bundle, clips)


def test_what_cannot_be_scored_is_refused(
    data: Path, exported_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in data.glob("ovave_*.csv"):
        shutil.copy(file, bare)
    shutil.copy(data / "released_ovavel_dataset_anno.json", bare)
    bundle = ["--bundle", str(exported_bundle), "--threads", "1"]
    wrong = {
        "all 8 clips are damaged": ["--data", str(bare), *bundle],
        "annotation": ["--data", str(tmp_path), *bundle],
        "no bundle": ["--data", str(data), "--bundle", str(tmp_path / "gone")],
        "ovavel train features": ["--data", str(data), *bundle, "--features", str(tmp_path)],
        "--weights is for": ["--data", str(data), *bundle, "--weights", "x"],
        "which protocols": ["--data", str(data), *bundle, "--protocols"],
        "--out is a folder": ["--data", str(bare), *bundle, "--out", str(bare / "ovave_dataset_meta.csv")],
    }
    for said, words in wrong.items():
        assert main(["eval", "score", "--out", str(tmp_path / "out"), *words]) > 0
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
    assert not list((tmp_path / "out").iterdir())


def test_a_cache_of_another_precision_is_refused_unless_asked_for(
    cache: Path, data: Path, exported_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(cache, other)
    info = json.loads((cache / "cache.json").read_text()) | {"precision": "bf16"}
    (other / "cache.json").write_text(json.dumps(info))
    words = ["--data", str(data), "--bundle", str(exported_bundle), "--features", str(other), "--device", "cpu"]
    for command in (["score"], ["lag", "--out", str(tmp_path / "s"), "--seeds", "0"]):
        assert main(["eval", *command, *words]) == 1
        said = capsys.readouterr().err
        assert "was computed in bf16 and onnxruntime-cpu runs the bundle" in said
        assert "--any-precision" in said
        assert main(["eval", *command, *words, "--any-precision"]) == 0
        capsys.readouterr()
