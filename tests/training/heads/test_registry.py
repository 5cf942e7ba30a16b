"""Heads by name: those that come with ovavel, those of other packages, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.installed import install
from support.made_heads import KINDS, LEARNED, embeddings, made, noisy

from ovavel.runtime.errors import CheckpointError, UsageError
from ovavel.training.heads.base import Head, load_head, make_head
from ovavel.training.heads.registry import check_settings, head_names
from ovavel.training.heads.temporal import HeadGraph, TemporalHead
from ovavel.training.models.checkpoint import read_metadata

DEFAULTS = {"dropout": 0.1, "hidden": None, "levels": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_comes_back_from_its_file_bit_for_bit(kind: str, tmp_path: Path) -> None:
    head = noisy(made(kind))
    head.save(tmp_path / "head.safetensors", {"recipe": "{}", "format": "not this", "head": "not this"})
    again = load_head(tmp_path / "head.safetensors")
    metadata = read_metadata(tmp_path / "head.safetensors")
    assert (metadata["head"], json.loads(metadata["config"])) == (head.name, head.config())
    assert metadata["recipe"] == "{}"
    assert type(again) is type(head)
    assert (again.config(), again.score, again.audio_scale) == (head.config(), head.score, head.audio_scale)
    assert not again.training
    assert [*again.state_dict()] == [*head.state_dict()]
    assert all(torch.equal(mine, head.state_dict()[name]) for name, mine in again.state_dict().items())
    with torch.no_grad():
        x = embeddings()
        assert all(map(torch.equal, HeadGraph(again)(*x, x[2]), HeadGraph(head)(*x, x[2])))
    again.save(tmp_path / "again.safetensors", {"recipe": "{}"})
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "head.safetensors").read_bytes()
    assert isinstance(type(head).load(tmp_path / "head.safetensors"), type(head))


def test_every_installed_head_is_tested() -> None:
    assert {"linear", "cross-modal", *KINDS} == set(head_names())


def test_a_file_of_another_kind_is_refused_by_the_class(tmp_path: Path) -> None:
    made("psp").save(tmp_path / "head.safetensors")
    with pytest.raises(CheckpointError, match=r"kind 'psp', not 'temporal'.*load_head"):
        TemporalHead.load(tmp_path / "head.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "perceiver"}, "no head 'perceiver'; there are: ave"),
        ({"config": "{"}, "that can be loaded"),
        ({"config": "[]"}, "that can be loaded"),
        ({"config": "[" * 100_000}, "that can be loaded"),
        ({"config": '{"dim": 16, "wings": 2}'}, "wings"),
        ({"config": '{"dim": 0}'}, "positive size"),
        ({"config": '{"dim": "16"}'}, "positive size"),
        ({"config": '{"dim": 16, "audio_scale": NaN}'}, "audio scale"),
        ({"config": '{"dim": 24}'}, r"is \("),
        ({"config": None}, "lacks 'config'"),
        ({"head": "cmra"}, "holds no entry of a head of the kind 'cmra'"),
        ({"head": "temporal", "config": '{"blocks": 1000000000}'}, "1000000000 blocks"),
        ({"head": "mm-pyramid", "config": '{"levels": 9}'}, "from 1 to 4 levels"),
        ({"head": "complex", "config": '{"trunk": 3}'}, "that can be loaded"),
        ({"head": "complex", "config": '{"trunk": {"head": "x", "config": {}}}'}, "no head 'x'"),
    ],
)
def test_what_a_file_says_wrongly_is_refused(changes: dict[str, str | None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    made("psp").save(path)
    metadata = {name: value for name, value in {**read_metadata(path), **changes}.items() if value is not None}
    save_file(load_file(path), path, metadata)
    with pytest.raises(CheckpointError, match=message) as error:
        load_head(path)
    assert "head.safetensors" in str(error.value)


def test_settings_are_used_or_refused() -> None:
    assert check_settings("psp", {"dropout": 0.1, "hidden": None, "levels": 1}, DEFAULTS) == {"dropout": 0.1}
    assert check_settings("mm-pyramid", {"dropout": 0.3, "levels": 2}, DEFAULTS) == {"dropout": 0.3, "levels": 2}
    with pytest.raises(UsageError, match="'psp' has no setting 'levels'"):
        check_settings("psp", {"levels": 2}, DEFAULTS)
    with pytest.raises(UsageError, match="'ave' has no setting 'dropout'"):
        check_settings("ave", {"dropout": 0.2}, DEFAULTS)
    with pytest.raises(UsageError, match="needs the setting 'trunk'"):
        check_settings("complex", {}, DEFAULTS)
    with pytest.raises(UsageError, match="no head 'pps'; there are: ave, cmra"):
        check_settings("pps", {}, DEFAULTS)
    with pytest.raises(UsageError, match="8 heads of attention"):
        make_head("mm-pyramid", dim=12)


def test_a_trunk_must_fit() -> None:
    with pytest.raises(UsageError, match="of size 16, not 8"):
        make_head("complex", dim=8, trunk=made("temporal"))
    for score in ("prob-avg", "feature-avg"):
        with pytest.raises(UsageError, match=score):
            make_head("complex", trunk=TemporalHead(1, 16, score=score))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="learned"):
        make_head("complex", trunk=made("complex"))


THEIRS = """
from ovavel.training.heads.base import Head

class Swapped(Head):
    name = "swapped"

    def forward(self, audio, vision):
        return vision, audio * self.audio_scale

def strange(dim):
    return dim
"""


def test_a_head_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_heads.py").write_text(THEIRS)
    heads = {"swapped": "their_heads:Swapped", "strange": "their_heads:strange", "gone": "their_heads:Gone"}
    install(tmp_path, monkeypatch, "theirs", {"ovavel.heads": {**heads, "psp": "their_heads:Swapped"}})
    assert {"swapped", "psp"} < set(head_names())
    head = make_head("swapped", dim=4, audio_scale=2.0)
    head.save(tmp_path / "head.safetensors")
    again = load_head(tmp_path / "head.safetensors")
    assert isinstance(again, Head)
    assert again.config() == {"dim": 4, "audio_scale": 2.0}
    for name, message in (
        ("psp", "provided more than once: ovavel.training.heads.psp:PSPHead, their_heads:Swapped"),
        ("gone", "cannot be loaded"),
        ("strange", "is a int, not a Head"),
    ):
        with pytest.raises(UsageError, match=message):
            make_head(name, dim=4)


@pytest.mark.parametrize("kind", LEARNED)
def test_what_a_head_learns_is_in_its_state(kind: str) -> None:
    head = made(kind)
    assert head.score == "learned"
    assert any("running_mean" in name for name in head.state_dict())
