"""`ovavel train table --suite` on a tiny dataset with made-up features: all rows, what is missing, what is kept."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import fields, replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
from support.feature_cache_factory import write_cache
from support.ovavebench_factory import make_bench

from ovavel.eval.datasets.audio_passes import AudioPasses
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.cli import main
from ovavel.runtime.errors import InputError, UsageError
from ovavel.training.commands.recipe_flags import _flags
from ovavel.training.fit.recipes import RECIPES
from ovavel.training.fit.table.cost import training_seconds
from ovavel.training.fit.table.stored import llm_line
from ovavel.training.fit.table.suites import DECIDED, SUITES, published_beside, suite_rows, table_rows
from ovavel.training.heads.base import load_head

SMALL = ["--epochs", "1", "--learning-rate", "1e-3", "--hidden", "8", "--ffn", "8", "--device", "cpu"]
OTHER_TEXTS = [
    f"rule {rule}, {texts}{on}"
    for rule, on in (("agreement", ""), ("positive", " on paper"))
    for texts in ("several background texts (max)", "several background texts (logsumexp)", "names in prompts")
]
TABLE_2 = ["video language model", "CLIP & CLAP, training-free", "agreement, training-free", "cmra", "ave", "psp"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("suite")
    make_bench(place / "data", clips=4, media=False)
    bench = OVAVEBench.open(place / "data")
    write_cache(place / "features" / "cache", bench, {"test": 1})
    return place


def command(place: Path, out: Path, *more: str) -> list[str]:
    folders = ["--data", str(place / "data"), "--features", str(place / "features"), "--out", str(out)]
    return ["train", "table", *folders, *SMALL, *more]


@pytest.fixture(scope="module")
def made(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("all")
    assert main(command(place, out, "--suite", "all", "--seeds", "1", "2")) == 0
    return out


def lines_of(out: Path) -> dict[str, dict]:
    return {line["name"]: line for line in json.loads((out / "table.json").read_text())["lines"]}


def test_every_row_is_there_or_says_why_not(made: Path) -> None:
    lines = lines_of(made)
    assert list(lines) == [row.name for row in SUITES["all"]]
    gone = [name for name, line in lines.items() if line["missing"]]
    assert sorted(gone) == sorted([*TABLE_2[:2], *OTHER_TEXTS, "paper-drop-path"])
    page = (made / "table.html").read_text()
    for name, line in lines.items():
        assert escape(name) in page
        if line["missing"]:
            assert escape(line["missing"]["reason"]) in page
            assert line["missing"]["command"].startswith("ovavel ")
            assert escape(line["missing"]["command"]) in page
            assert line["mean"] is None
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<script|<link|src=|href=", page)
    assert lines["rule clip-prior"]["label"] == "benchmark only"
    assert lines["rule clip-prior"]["joined"] is None
    assert lines["rule agreement"]["joined"]["deviation"] is not None
    fitted = json.loads((made / "rules" / "embeddings" / "av2a-fitted.json").read_text())
    assert fitted["rule"]["parameters"].keys() == {"alpha", "start", "check", "filter", "decay"}
    assert not json.loads((made / "rules" / "embeddings" / "av2a.json").read_text())["rule"].get("parameters")


def test_a_row_that_needs_passes_is_made_where_there_are_some(
    place: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = lines_of(made)["paper-drop-path"]["missing"]
    assert "stochastic depth" in missing["reason"]
    assert re.search(r"ovavel train features .*--passes 5 --drop-path 0.1 .*--features FOLDER", missing["command"])
    write_cache(tmp_path / "passes", OVAVEBench.open(place / "data"), {}, AudioPasses(count=2, drop_path=0.1))
    (tmp_path / "above.toml").write_text('base = "complex"\ntrunk = "paper-drop-path"')
    more = ["--recipes", "paper", "paper-drop-path", "--features", str(tmp_path / "passes")]
    assert main(command(place, tmp_path / "out", *more)) == 0
    lines = lines_of(tmp_path / "out")
    assert not lines["paper-drop-path"]["missing"]
    assert lines["paper-drop-path"]["mean"]["total"]["avg"] > 0
    losses = [
        json.loads((tmp_path / "out" / name / "seed-123" / "result.json").read_text())["epochs"][0]["loss"]
        for name in ("paper", "paper-drop-path")
    ]
    assert losses[0] != losses[1]
    capsys.readouterr()
    trunk = ["--recipes", str(tmp_path / "above.toml"), *SMALL[:2]]
    folders = ["--data", str(place / "data"), "--features", str(place / "features"), "--out", str(tmp_path / "trunk")]
    assert main(["train", "table", *folders, *trunk]) == 0
    assert "Missing: above: it trains on sound with stochastic depth" in capsys.readouterr().out
    assert main(["train", "head", *folders, "--recipe", "paper-drop-path"]) == 2
    assert "--passes 5 --drop-path 0.1" in capsys.readouterr().err


def test_the_csv_has_the_figures_of_the_json(made: Path) -> None:
    lines = lines_of(made)
    rows = list(csv.DictReader((made / "table.csv").read_text().splitlines()))
    assert {row["method"] for row in rows} == lines.keys()
    shown = {(row["method"], row["clips"], row["measure"]): row for row in rows}
    assert len(shown) == len(rows)
    for name, line in lines.items():
        for part, scores in (line["mean"] or {}).items():
            for measure, value in scores.items():
                row = shown.pop((name, part, measure))
                assert float(row["value"]) == value
                if line["deviation"]:
                    assert float(row["deviation"]) == line["deviation"][part][measure]
        for measure in ("parameters", "window_ms", "window_ratio"):
            if line["cost"][measure] is not None:
                assert float(shown.pop((name, "", measure))["value"]) == line["cost"][measure]
        for measure, each in (("drop", line["drop"]), ("training_s", line["cost"]["training_s"])):
            if each:
                assert float(shown.pop((name, "", measure))["value"]) == each["mean"]
        for gain in line["gains"]:
            for part, each in gain["parts"].items():
                if each:
                    assert float(shown.pop((name, part, f"gain over {gain['over']}"))["value"]) == each["mean"]
    assert {measure for _, _, measure in shown} == {"missing", "joined avg"}


def test_costs_drops_and_gains(made: Path) -> None:
    lines = lines_of(made)
    runs = [json.loads((made / "psp" / f"seed-{seed}" / "result.json").read_text()) for seed in (1, 2)]
    base = [json.loads((made / "paper" / f"seed-{seed}" / "result.json").read_text()) for seed in (1, 2)]
    tests, bases = ([run["epochs"][run["chosen"] - 1]["test"] for run in each] for each in (runs, base))
    drops = [test["seen"]["avg"] - test["unseen"]["avg"] for test in tests]
    assert lines["psp"]["drop"]["mean"] == pytest.approx(np.mean(drops))
    assert lines["psp"]["drop"]["deviation"] == pytest.approx(np.std(drops, ddof=1))
    gains = [test["total"]["avg"] - other["total"]["avg"] for test, other in zip(tests, bases, strict=True)]
    [gain] = lines["psp"]["gains"]
    assert gain["over"] == "paper"
    assert gain["parts"]["total"]["mean"] == pytest.approx(np.mean(gains))
    for name, line in lines.items():
        cost = line["cost"]
        if name in RECIPES and not line["missing"]:
            head = load_head(made / name / "seed-1" / "head.safetensors")
            assert cost["parameters"] == head.parameter_count == sum(w.numel() for w in head.parameters())
            assert cost["training_s"]["mean"] > 0
            assert cost["window_ms"] > 0
        elif name in DECIDED:
            assert cost["parameters"] == 0
            assert cost["training_s"] is None
            assert cost["window_ms"] > 0
    assert lines["paper"]["cost"]["window_ratio"] == 1
    assert lines["rule published on paper"]["mean"] == lines["paper"]["mean"]


def test_complex_stands_on_the_head_of_its_row(made: Path) -> None:
    for seed in (1, 2):
        lent, trunk = (made / name / f"seed-{seed}" for name in ("paper", "complex"))
        trunk = trunk / "trunk"
        assert (trunk / "head.safetensors").read_bytes() == (lent / "head.safetensors").read_bytes()
        own = training_seconds(made / "complex" / f"seed-{seed}", 1)
        below = training_seconds(lent, 1)
        assert own is not None
        assert below is not None
        assert own > below


def test_a_complete_table_is_not_trained_again(
    place: Path, made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file: file.read_bytes() for file in made.glob("*/seed-*/*") if file.is_file()}
    kept = {file: file.read_bytes() for file in made.glob("rules/*/*.json")}
    alone = command(place, made, "--suite", "all", "--seeds", "1", "2")
    assert len(kept) == 11 * 3
    scores = {name: line["mean"] for name, line in lines_of(made).items()}
    (made / "psp" / "seed-2" / "result.json").unlink()  # an interrupted table
    (made / "rules" / "seed-1" / "av2a.json").write_text("{")
    monkeypatch.setattr("ovavel.training.fit.table.rules.fit_rule", None)  # nothing is fitted again
    assert main(alone) == 0
    assert {file: file.read_bytes() for file in before if file.name != "times.json"} == {
        file: data for file, data in before.items() if file.name != "times.json"
    }
    assert {file: file.read_bytes() for file in kept} == kept
    assert {name: line["mean"] for name, line in lines_of(made).items()} == scores
    assert "--hidden leaves cmra, ave, psp, mm-pyramid, complex unchanged." in capsys.readouterr().out


def llm_report(fingerprint: str, *, split: str = "test", protocol: str = "llm") -> str:
    scores = {"acc": 0.5, "seg": 0.4, "eve": 0.3, "avg": 0.4}
    ends = {measure: [0.1, 0.9] for measure in scores}
    result = {
        "protocol": protocol, "method": "model, seen and heard", "seen": scores, "unseen": None, "total": scores,
        "intervals": {"seen": ends, "unseen": None, "total": ends},
    }  # fmt: skip
    figures = [{"question": "both", "invalid_share": 0.25, "seconds": 2.0}]
    dataset = {"fingerprint": fingerprint, "split": split, "scored": 11, "damaged": {"count": 1}}
    return json.dumps({"dataset": dataset, "results": [result], "llm": {"model": "<b>omni", "figures": figures}})


def test_rows_from_elsewhere(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = OVAVEBench.open(place / "data")
    (tmp_path / "llm.json").write_text(llm_report(bench.fingerprint))
    write_cache(tmp_path / "second", bench, {"test": 2})
    more = ["--features-clip-clap", str(tmp_path / "second"), "--llm-scores", str(tmp_path / "llm.json")]
    rows = [row for row in SUITES["paper"] if row.source != "recipe"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SUITES, "paper", rows)  # type: ignore[arg-type]
        assert main(command(place, tmp_path / "out", *more)) == 0
    lines = lines_of(tmp_path / "out")
    assert lines["video language model"]["mean"]["seen"]["avg"] == 0.4
    assert lines["video language model"]["mean"]["unseen"] is None
    assert lines["video language model"]["cost"]["parameters"] is None
    assert lines["CLIP & CLAP, training-free"]["mean"]["total"]["avg"] > 0
    assert not any(line["missing"] for line in lines.values())
    out = capsys.readouterr().out
    assert "11 of 24 clips, a part of the split; 25.0% of its answers were invalid, 2.0 s a clip" in out
    assert "embeddings by made up in fp32" in out
    assert "<b>omni" not in (tmp_path / "out" / "table.html").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ('{"results": []}', "cannot be read"),
        (llm_report("other"), "other annotations"),
        (llm_report("mine", split="val"), "split val"),
        (llm_report("mine", protocol="fused"), "no scores of a language model"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(InputError, match=message):
        llm_line("model", tmp_path / "scores.json", "mine", 12)
    with pytest.raises(InputError, match="cannot be read"):
        llm_line("model", tmp_path, "mine", 12)


def test_a_cache_of_other_annotations_is_refused_before_training(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = OVAVEBench.open(make_bench(tmp_path / "data", clips=3, media=False))
    write_cache(tmp_path / "second", other, {})
    assert main(command(place, tmp_path / "out", "--features-clip-clap", str(tmp_path / "second"))) == 1
    assert "other annotations" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_suites() -> None:
    for rows in SUITES.values():
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)
        assert names[2:8] == TABLE_2 or names[3:9] == TABLE_2
    assert {row.name for row in SUITES["paper"]} < {row.name for row in SUITES["all"]}
    for row in SUITES["all"]:
        if row.recipe:
            assert row.recipe == RECIPES[row.name]
    assert published_beside(replace(RECIPES["complex"], seed=5)) == "complex fusion"
    assert published_beside(replace(RECIPES["complex"], epochs=5)) is None
    both = table_rows("paper", [RECIPES["ave"], RECIPES["mixed"]])
    assert [row.name for row in both][-1] == "mixed"
    assert [row.name for row in both].count("ave") == 1
    assert [row.name for row in table_rows(None, [RECIPES["ave"]])][-1] == "ave"


def test_a_row_takes_the_flags_that_leave_it_what_it_is() -> None:
    values = {"hidden": 16, "ffn": 32, "temperature": 0.5, "dropout": 0.3, "epochs": 7}
    rows = {row.name: row for row in suite_rows("all", _flags()(**values))}
    for name, row in rows.items():
        if row.recipe:
            own = RECIPES[name]
            assert row.recipe.epochs == 7
            for field in fields(own):
                value, plain = getattr(row.recipe, field.name), getattr(own, field.name)
                assert value == plain or (value == values[field.name] and field.name not in row.left_out)
    assert rows["ave"].left_out == ("dropout", "ffn", "hidden")
    assert rows["mm-pyramid"].left_out == ("dropout", "hidden")  # its own dropout is what it was published with
    assert rows["sharp-mixed"].left_out == ("temperature",)
    assert rows["paper"].left_out == ()
    for name, value in {"head": "ave", "train_ratio": 0.5, "score": "prob-avg", "stochastic_depth": True}.items():
        with pytest.raises(UsageError, match="differ in"):
            suite_rows("paper", _flags()(**{name: value}))
