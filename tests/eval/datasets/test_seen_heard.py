"""OV-AVEBench's events beside VGGSounder's labels."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from support.ovavebench_factory import make_bench

from ovavel.eval.datasets.dataset import Clip
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.eval.datasets.readers.vggsounder import parse_vggsounder
from ovavel.eval.datasets.seen_heard import BOTH, COMPARED, LEFT_OUT, compare, score_groups
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DatasetError

HEAD = "video_id,label,modality,background_music,static_image,voice_over"
FLAGS = ("False", "True", "False")
CLASSES = (
    "ambulance siren",
    "cat purring",
    "dog barking, woof",
    "Race  Car, auto racing",
    "church bell ringing",
    "bell",
)


def text_of(*rows: tuple[str, str, str]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows([HEAD.split(","), *((*row, *FLAGS) for row in rows)])
    return file.getvalue()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> OVAVEBench:
    return OVAVEBench.open(make_bench(tmp_path_factory.mktemp("seen") / "bench", clips=4))


@pytest.fixture(scope="module")
def eventful(bench: OVAVEBench) -> list[Clip]:
    """Test clips with an event, of known classes: of "singing bowl" VGGSounder has none here."""
    return [clip for clip in bench.select("test") if any(clip.labels) and clip.category != "singing bowl"]


@pytest.fixture
def labels(tmp_path: Path, bench: OVAVEBench, eventful: list[Clip]) -> Path:
    """Labels of six clips that differ in every way, and of one without an event."""
    full = {"dog barking": "dog barking, woof", "race car": "Race  Car, auto racing"}
    rows = []
    for clip, modality in zip(eventful, ("AV", "A", "V", "none", "twice", "AV"), strict=False):
        own = full.get(clip.category, clip.category)
        rows.append(
            (f"{clip.name}_000030", "bell" if modality == "none" else own, modality if len(modality) < 3 else "AV")
        )
        if modality == "twice":
            rows.append((f"{clip.name}_000170", own, "A"))
    bowl = next(clip for clip in bench.select("test") if any(clip.labels) and clip.category == "singing bowl")
    silent = next(clip for clip in bench.select("test") if not any(clip.labels))
    rows += [(f"{bowl.name}_000000", "bell", "AV"), (f"{silent.name}_000030", silent.category, "AV")]
    rows += [("another1234_000000", name, "AV") for name in CLASSES]
    path = tmp_path / "vggsounder.csv"
    path.write_text(text_of(*rows))
    return path


def test_every_clip_with_an_event_is_in_one_group(bench: OVAVEBench, eventful: list[Clip], labels: Path) -> None:
    found, groups = compare(bench, parse_vggsounder(labels, labels.read_bytes()), labels)
    test = found.splits["test"]
    bowls = sum(any(clip.labels) and clip.category == "singing bowl" for clip in bench.select("test"))
    assert [test[each] for each in COMPARED] == [2, 1, 1, 1]
    assert [test[each] for each in LEFT_OUT] == [len(eventful) - 6 + bowls - 1, 1, 1]
    assert sum(test.values()) == sum(any(clip.labels) for clip in bench.select("test"))
    assert sum(found.splits["train"][each] for each in COMPARED) == 0
    assert found.unmatched == {"singing bowl": 1}
    assert groups == {
        ("test", clip.name): group
        for clip, group in zip(
            eventful, (BOTH, "only heard (A)", "only seen (V)", "not labelled with its class", "", BOTH), strict=False
        )
        if group
    }


def test_a_name_with_its_start_is_matched_with_it(bench: OVAVEBench, eventful: list[Clip], tmp_path: Path) -> None:
    clip = eventful[0]
    rows = [(f"{clip.name}_0000{start}", clip.category, modality) for start, modality in ((10, "A"), (20, "V"))]
    given = parse_vggsounder(tmp_path, text_of(*rows).encode())
    for name, group in (
        (f"{clip.name}_000020", "only seen (V)"),
        (f"{clip.name}_000030", "video not in VGGSounder"),
        (clip.name, "several clips of its video there"),
    ):
        named = Clip(split="test", name=name, category=clip.category, seen=True, labels=(1,) * 10)
        one = OVAVEBench(
            root=bench.root,
            names=bench.names,
            seen_names=bench.names,
            clips=(named,),
            fingerprint="",
            annotation_paths=(),
        )
        assert compare(one, given, tmp_path)[0].splits["test"][group] == 1


def test_a_name_that_could_be_two_is_no_match(bench: OVAVEBench, eventful: list[Clip], tmp_path: Path) -> None:
    name = eventful[0].category
    clip = f"{eventful[0].name}_000030"
    for rows, expected in (
        ([(clip, f"{name}, one", "AV"), (clip, f"{name}, two", "AV")], "class not in VGGSounder"),
        ([(clip, f"{name}, one", "A"), (clip, name, "AV")], BOTH),
    ):
        found, _ = compare(bench, parse_vggsounder(tmp_path, text_of(*rows).encode()), tmp_path)
        assert found.splits["test"][expected] == 1


def test_the_command_shows_counts_and_scores(
    bench: OVAVEBench, eventful: list[Clip], labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = [
        {"name": clip.name, "acc": i / 10, "seg": 0.5, "eve": 0.25, "avg": i / 20}
        for i, clip in enumerate(eventful[:6])
    ]
    report = {
        "dataset": {"fingerprint": bench.fingerprint, "split": "test"},
        "results": [{"method": "ovavel fused"}],
        "clips": scored,
    }
    scores = tmp_path / "ovave-test.json"
    scores.write_text(json.dumps(report))
    given = ["eval", "data", "--data", str(bench.root), "--vggsounder", str(labels), "--workers", "1"]
    assert main([*given, "--scores", str(scores), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if BOTH in line)
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["0", "0", "2", "2"]
    assert "classes that VGGSounder does not have, with clips left out: singing bowl (1)" in shown
    assert "scores: ovavel fused, test" in shown
    found = json.loads((tmp_path / "out/check-data.json").read_text())["seen_heard"]
    assert found["scores"][BOTH] == {"clips": 2, "acc": 0.25, "seg": 0.5, "eve": 0.25, "avg": 0.125}
    assert found["scores"]["not both"]["clips"] == 3
    assert found["scores"]["not both"]["acc"] == pytest.approx(0.2)
    assert main(given) == 0
    assert "scores:" not in capsys.readouterr().out
    # Others than what is asked for are refused before any medium is read.
    scores.write_text(json.dumps(report | {"dataset": {"fingerprint": "0" * 64, "split": "test"}}))
    for more, said in (
        (["--scores", str(scores)], "is of other annotations"),
        (["--scores", str(labels)], "is not the JSON of"),
        (["--dataset", "ave"], "--vggsounder is for OV-AVEBench"),
    ):
        assert main([*given, *more]) > 0
        assert said in capsys.readouterr().err
    assert main(["eval", "data", "--data", str(bench.root), "--scores", str(scores)]) == 2
    with pytest.raises(DatasetError, match="is missing"):
        score_groups(tmp_path / "gone", bench, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns are"),
        (HEAD + "\n", "holds no label"),
        (HEAD.replace("label", "name"), "line 1: the columns are"),
        (HEAD + "\nabcdefghijk_000030,bell,AV,False,False", "line 2: 5 values instead of 6"),
        (HEAD + "\nabcdefghijk,bell,AV,False,False,False", "line 2: 'abcdefghijk' is not the id"),
        (HEAD + "\nabcdefghijk_000030,bell,VA,False,False,False", "line 2: the modality is 'VA'"),
        (HEAD + "\nabcdefghijk_000030,bell,A,False,no,False", "line 2: 'no' is neither"),
        (HEAD + "\nabcdefghijk_000030, ,A,False,False,False", "line 2: ' ' is not the name"),
        (HEAD + '\n\nabcdefghijk_000030,"bell,A,False,False,False\n', "line 3: unexpected end of data"),
        (HEAD + 2 * "\nabcdefghijk_000030,bell,A,False,False,False", "line 3: abcdefghijk_000030 is labelled"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError) as error:
        parse_vggsounder(tmp_path / "v.csv", text.encode())
    assert message in str(error.value)
    assert str(tmp_path / "v.csv") in str(error.value)
