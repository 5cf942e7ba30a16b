"""A model that really looks and listens, on a small dataset: what it is asked, what is kept, and what is lost."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import chat_endpoint as chat
from support.chat_endpoint import ChatEndpoint, SeesAndHears
from support.ovavebench_factory import SEEN, UNSEEN, break_clip, make_bench

from ovavel.eval.accuracy.llm.answers import Answer, AnswerFile
from ovavel.eval.accuracy.llm.client import Endpoint, endpoint_url
from ovavel.eval.accuracy.llm.parse import Parsed
from ovavel.eval.accuracy.llm.probe import NAMES, SHOWN, deaf_or_blind
from ovavel.eval.accuracy.llm.prompt import QUESTIONS, Prompt, media_sha256, prompt_sha256
from ovavel.eval.accuracy.llm.run import NO_ANSWER, Asked, Task, ask, decide
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.errors import DatasetError, EndpointError, InputError

CLASSES = sorted([*SEEN, *UNSEEN])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bench(tmp_path_factory.mktemp("bench"), clips=1)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


async def no_pause(pause_s: float) -> None:
    pass


def asked_about(root: Path, server: ChatEndpoint, kept: Path, *, controls: bool = False, concurrency: int = 2) -> Asked:
    dataset = OVAVEBench.open(root)
    endpoint = Endpoint(url=endpoint_url(server.url), model="toy", timeout_s=60)
    task = Task(
        dataset=dataset,
        clips=dataset.select("test"),
        questions=QUESTIONS if controls else QUESTIONS[:1],
        endpoint=endpoint,
        concurrency=concurrency,
    )
    with AnswerFile(kept) as file:
        return ask(task, file, pause=no_pause)


def truth(root: Path, asked: Asked) -> np.ndarray:
    return OVAVEBench.open(root).truth(asked.clips)


def stored(kept: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in kept.read_text().splitlines()]


def test_who_looks_and_listens_decides_correctly(root: Path, kept: Path) -> None:
    """Stills, sound, seconds, numbers and their order all have to be right for that."""
    with ChatEndpoint(SeesAndHears.of_bench(CLASSES)) as server:
        asked = asked_about(root, server, kept, controls=True)
    assert len(asked.clips) == 6
    for question in QUESTIONS:
        np.testing.assert_array_equal(asked.labels[question], truth(root, asked))
    kinds = Counter((len(chat.stills(body)), chat.sound(body) is not None) for body in server.questions)
    assert kinds == {(10, True): 6, (10, False): 6, (0, True): 6}
    assert asked.run.asked == 18
    assert asked.run.answered_as == {"toy": 18}
    assert [each.read_as["json"] for each in asked.run.figures] == [6, 6, 6]
    assert [(each.prompt_tokens, each.completion_tokens) for each in asked.run.figures] == [(1000, 50)] * 3
    lines = stored(kept)
    assert len(lines) == 4 + 18
    assert all(line["server"] == f"{server.url}/chat/completions" and line["text"] for line in lines)
    orders = {tuple(chat.classes(body)) for body in server.questions}
    assert len(orders) > 3  # shuffled by clip
    assert {frozenset(order) for order in orders} == {frozenset(CLASSES)}


def test_sight_alone_and_sound_alone_are_not_agreement(root: Path, kept: Path) -> None:
    """Of a model that hears a class that it never sees, nothing is both."""

    class Confused(SeesAndHears):
        def __call__(self, body: chat.Body) -> str:
            said = json.loads(super().__call__(body))
            if "heard" in said and not chat.is_probe(body):
                said["heard"] = [(n + 1) % len(CLASSES) if n >= 0 else n for n in said["heard"]]
            return json.dumps(said)

    with ChatEndpoint(Confused.of_bench(CLASSES)) as server:
        asked = asked_about(root, server, kept, controls=True)
    background = len(CLASSES)
    assert (asked.labels["both"] == background).all()
    np.testing.assert_array_equal(asked.labels["sight"], truth(root, asked))
    assert not np.array_equal(asked.labels["sound"], truth(root, asked))


@pytest.mark.parametrize(("senses", "said"), [({"deaf": True}, "does not hear"), ({"blind": True}, "does not see")])
def test_a_server_that_drops_a_sense_is_refused(root: Path, kept: Path, senses: dict[str, bool], said: str) -> None:
    with ChatEndpoint(SeesAndHears.of_bench(CLASSES, **senses)) as server, pytest.raises(EndpointError, match=said):
        asked_about(root, server, kept)
    assert not server.questions
    assert len(stored(kept)) == len(SHOWN)  # raw answers of the probe are kept as well


def test_a_server_that_drops_both_or_talks_is_refused(root: Path, kept: Path) -> None:
    with ChatEndpoint(lambda body: "I am a language model.") as server:
        with pytest.raises(EndpointError, match=r"does not hear.*does not see") as found:
            asked_about(root, server, kept)
    assert "I am a language model" in str(found.value)


@pytest.mark.parametrize("number", range(-1, len(NAMES)))
def test_no_constant_answer_passes_the_probe(number: int) -> None:
    answers = {each.name: json.dumps({"seen": [number] * 10, "heard": [number] * 10}) for each in SHOWN}
    assert "hear" in deaf_or_blind(answers)
    assert "see" in deaf_or_blind(answers)


def test_nothing_is_asked_twice(root: Path, kept: Path) -> None:
    with ChatEndpoint(SeesAndHears.of_bench(CLASSES)) as server:
        first = asked_about(root, server, kept)
        size, questions = kept.stat().st_size, len(server.bodies)
        second = asked_about(root, server, kept)
        assert (len(server.bodies), kept.stat().st_size) == (questions, size)  # not even the probe
        assert (first.run.asked, first.run.kept, second.run.asked, second.run.kept) == (6, 0, 0, 6)
        np.testing.assert_array_equal(first.labels["both"], second.labels["both"])
        third = asked_about(root, server, kept, controls=True)
    assert (third.run.asked, third.run.kept) == (12, 6)


def test_other_media_are_asked_about_again(tmp_path: Path, kept: Path) -> None:
    root = make_bench(tmp_path / "bench", clips=1)
    with ChatEndpoint(SeesAndHears.of_bench(CLASSES)) as server:
        clip = asked_about(root, server, kept).clips[0]
        frames = sorted(OVAVEBench.open(root).frames_dir(clip).iterdir())
        frames[0].write_bytes(frames[1].read_bytes())
        assert asked_about(root, server, kept).run.asked == 1
        break_clip(root, clip, "sound empty")
        asked = asked_about(root, server, kept)
    assert [(each.name, each.kind) for each in asked.damaged] == [(clip.name, "sound empty")]
    assert (asked.run.asked, asked.run.kept) == (0, 5)


def test_a_torn_line_is_repaired_and_others_are_kept(root: Path, kept: Path) -> None:
    with ChatEndpoint(SeesAndHears.of_bench(CLASSES)) as server:
        asked_about(root, server, kept)
        lines = kept.read_bytes().splitlines(keepends=True)
        lines[5] = b'{"key": 3}\n'
        kept.write_bytes(b"".join(lines[:-1]) + lines[-1][:-40])
        asked = asked_about(root, server, kept)
    assert (asked.run.asked, asked.run.kept) == (2, 4)
    assert "incomplete line" in asked.run.file_damage
    assert "1 lines are no answers" in asked.run.file_damage
    with AnswerFile(kept) as file:
        assert (file.torn, file.unreadable) == (False, 1)


def test_two_processes_do_not_write_to_one_file(kept: Path) -> None:
    with AnswerFile(kept), pytest.raises(InputError, match="another process"):
        AnswerFile(kept)
    kept.unlink()
    os.mkfifo(kept)
    with pytest.raises(InputError, match="pipe"):
        AnswerFile(kept)


def test_invalid_and_refused_answers_are_background_and_counted(root: Path, kept: Path) -> None:
    faults = [chat.says("no idea"), chat.status(400, "filtered"), chat.status(400, "filtered")]
    with ChatEndpoint(SeesAndHears.of_bench(CLASSES), faults) as server:
        asked = asked_about(root, server, kept, concurrency=1)
        (figures,) = asked.run.figures
        assert (figures.read_as["invalid"], figures.read_as["refused"], figures.read_as["json"]) == (1, 1, 4)
        assert figures.invalid == pytest.approx(2 / 6)
        assert (asked.labels["both"][:2] == len(CLASSES)).all()
        again = asked_about(root, server, kept)  # a refusal is asked again, an answer is not
    assert (again.run.asked, again.run.kept) == (1, 5)
    assert again.run.figures[0].read_as["invalid"] == 1


def test_every_rung_is_counted(root: Path, kept: Path) -> None:
    def in_words(handler: chat.Handler, body: chat.Body) -> None:
        said = json.loads(handler.endpoint.brain(body))
        handler.answer("\n".join(f"{name}: {numbers}" for name, numbers in said.items()))

    def fenced(handler: chat.Handler, body: chat.Body) -> None:
        handler.answer(f"```json\n{handler.endpoint.brain(body)}\n```", model="toy-2")

    with ChatEndpoint(SeesAndHears.of_bench(CLASSES), [in_words, fenced, chat.events()]) as server:
        asked = asked_about(root, server, kept)
    np.testing.assert_array_equal(asked.labels["both"], truth(root, asked))
    counted = {name: count for name, count in asked.run.figures[0].read_as.items() if count}
    assert counted == {"json": 4, "embedded": 1, "lines": 1}
    assert asked.run.answered_as == {"toy": 5, "toy-2": 1}
    assert any("another model" in each for each in asked.run.remarks())


def test_a_clip_without_an_answer_is_left_out_and_asked_again(root: Path, kept: Path) -> None:
    with ChatEndpoint(SeesAndHears.of_bench(CLASSES)) as server:
        server.faults.extend([chat.status(500)] * 6)
        asked = asked_about(root, server, kept, concurrency=1)
        assert [record.kind for record in asked.damaged] == [NO_ANSWER]
        assert len(asked.clips) == 5
        assert asked.run.failures == {"HTTP 500": 6}
        again = asked_about(root, server, kept)
    assert not again.damaged
    assert (again.run.asked, again.run.kept) == (1, 5)


def test_a_server_that_is_gone_ends_the_run(root: Path, kept: Path) -> None:
    with ChatEndpoint(SeesAndHears.of_bench(CLASSES)) as server:
        server.faults.extend([chat.says("x"), *[chat.status(503)] * 1000])
        with pytest.raises(EndpointError, match="3 clips in a row got no answer"):
            asked_about(root, server, kept, concurrency=1)
    assert len(stored(kept)) == 4 + 1


def test_a_server_that_is_not_there_ends_the_run_at_the_probe(root: Path, kept: Path) -> None:
    with ChatEndpoint(at_probe=True, always=chat.status(503)) as server:
        with pytest.raises(EndpointError, match="check the address"):
            asked_about(root, server, kept)
        assert len(server.bodies) == 3
        server.always = chat.status(400, "no audio here")
        with pytest.raises(EndpointError, match="no audio here; it has to take"):
            asked_about(root, server, kept)


def test_no_clip_can_be_read(tmp_path: Path, kept: Path) -> None:
    root = make_bench(tmp_path / "bench", clips=1, media=False)
    with ChatEndpoint() as server, pytest.raises(DatasetError, match=r"all 6 clips.*6 no sound file"):
        asked_about(root, server, kept)
    assert not server.bodies


def test_a_decision_needs_both() -> None:
    order = (2, 0, 1)
    seen, heard = (0, 1, 2, -1, -1, 0, 0, 0, 0, 2), (0, 1, 1, -1, 2, -1, 0, 0, 0, 2)
    assert decide(Parsed("json", seen, heard), order) == [2, 0, 3, 3, 3, 3, 2, 2, 2, 1]
    assert decide(Parsed("json", seen, None), order) == [2, 0, 1, 3, 3, 2, 2, 2, 2, 1]
    assert decide(Parsed("invalid", None, None), order) == [3] * 10


def test_hashes_change_with_what_they_stand_for(root: Path) -> None:
    dataset = OVAVEBench.open(root)
    media = [dataset.media(clip) for clip in dataset.select("test")[:2]]
    assert media_sha256(media[0]) == media_sha256(dataset.media(dataset.select("test")[0]))
    louder = replace(media[0], waveform=media[0].waveform * np.float32(0.5))
    assert len({media_sha256(each) for each in (*media, louder)}) == 3
    names = ("a", "b")
    prompts = [("both", names, 64), ("sight", names, 64), ("both", ("b", "a"), 64), ("both", names, 65)]
    assert len({prompt_sha256(*each) for each in prompts}) == 4
    same = [Prompt(question=question, names=names, clip="x").order for question in QUESTIONS]
    assert len(set(same)) == 1


def test_a_stored_answer_is_one_plain_line(kept: Path) -> None:
    strange = "a\x1b[31m\u202e\n\ud800{}"
    answer = Answer(
        key="k", clip=strange, question="both", text=strange, status=200, server="s", model=strange, answered_as=None,
        prompt_sha256="p", media_sha256="m", with_schema=True, finish=None, prompt_tokens=None, completion_tokens=None,
        seconds=0.5,
    )  # fmt: skip
    with AnswerFile(kept) as file:
        file.add(answer)
    (line,) = kept.read_text().splitlines()
    assert line.isprintable()
    with AnswerFile(kept) as file:
        found = file.get("k")
    assert found
    assert found.text.startswith("a\x1b[31m\u202e\n")
