"""Answers of models, as they come: what is read from them, by which rung, and that nothing is guessed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.eval.accuracy.llm.parse import RUNGS, parse
from ovavel.eval.accuracy.llm.prompt import LISTS, QUESTIONS, Question

CLASSES = 12
SEEN, HEARD = [5, 5, 5, 5, -1, -1, -1, 3, 3, 3], [5, 5, -1, -1, -1, -1, 3, 3, 3, 11]
BOTH = {"seen": SEEN, "heard": HEARD}
NICE = json.dumps(BOTH)
BY_SECOND = list(zip(range(10), SEEN, HEARD, strict=True))

READ = {
    "strict": ("json", NICE),
    "strict, with white space and other fields": ("json", "\n  " + json.dumps({**BOTH, "note": "two dogs"}, indent=2)),
    "a fence": ("embedded", f"```json\n{NICE}\n```"),
    "prose before and after": (
        "embedded",
        f"Sure! Here is what I found in the video:\n\n{NICE}\n\nLet me know {{if}} 3.",
    ),
    "braces in the prose": ("embedded", f'I use the form {{"seen": [10 numbers]}} as asked. {NICE}'),
    "trailing commas": ("embedded", NICE.replace("]", ",]").replace("}", ",}")),
    "numbers as strings": ("embedded", json.dumps({k: [str(n) for n in v] for k, v in BOTH.items()})),
    "numbers with a point": ("embedded", json.dumps({k: [float(n) for n in v] for k, v in BOTH.items()})),
    "null and words for none": (
        "embedded",
        json.dumps(
            {k: [(None, "none", "Nothing")[i % 3] if n < 0 else n for i, n in enumerate(v)] for k, v in BOTH.items()}
        ),
    ),
    "capitals": ("embedded", json.dumps({"Seen": SEEN, "Heard": HEARD})),
    "inside another object": ("embedded", json.dumps({"answer": BOTH})),
    "typographic minus": ("embedded", NICE.replace("-1", "−1")),
    "thinking before": (
        "embedded",
        f"<think>Maybe {json.dumps({'seen': [0] * 10, 'heard': [0] * 10})}?</think>\n{NICE}",
    ),
    "nested thinking": ("embedded", f"<think>a <think>b</think> {{}} c</think>{NICE}"),
    "thinking opened by the template": ("embedded", f"so 0, 1, 2 … </think>\n\n{NICE}"),
    "an object for each list": (
        "ranges",
        '{"seen": {"0-3": 5, "4-6": -1, "7-9": 3}, "heard": {"0-1": 5, "2-5": -1, "6-8": 3, "9": 11}}',
    ),
    "ranges": ("ranges", "seen: 0-3: 5, 7-9: 3\nheard: 0-1: 5; 6 to 8: 3; 9: 11"),
    "ranges on lines": (
        "ranges",
        "**Seen:**\n- seconds 0–3: 5 (dog barking)\n- seconds 4–6: none\n- seconds 7–9: 3\n\n"
        "**Heard:**\n- seconds 0–1: 5\n- seconds 6–8: 3\n- second 9: 11\n",
    ),
    "brackets without braces": ("lines", f"seen = {SEEN}\nheard = {HEARD}\nI counted 2 dogs."),
    "numbers on two lines": ("lines", f"Seen: {' '.join(map(str, SEEN))}\nHeard: {' '.join(map(str, HEARD))}\n"),
    "a line for each second": ("lines", "\n".join(f"second {t}: seen {s}, heard {h}" for t, s, h in BY_SECOND)),
    "heard before seen": ("lines", "\n".join(f"{t}. heard {h}, seen {s}" for t, s, h in BY_SECOND)),
    "a table": (
        "lines",
        "| s | seen | heard |\n|---|---|---|\n" + "\n".join(f"| {t} | {s} | {h} |" for t, s, h in BY_SECOND),
    ),
    "bare lines": ("lines", "\n".join(f"{t}: {s}, {h}" for t, s, h in BY_SECOND)),
}

INVALID = {
    "nothing": "",
    "white space": " \n",
    "words": "I cannot watch videos.",
    "nine numbers": json.dumps({"seen": SEEN[:9], "heard": HEARD}),
    "eleven numbers": json.dumps({"seen": [*SEEN, 3], "heard": HEARD}),
    "one list": json.dumps({"seen": SEEN}),
    "a class that is not there": json.dumps({"seen": [CLASSES, *SEEN[1:]], "heard": HEARD}),
    "below -1": json.dumps({"seen": [-2, *SEEN[1:]], "heard": HEARD}),
    "half a number": json.dumps({"seen": [0.5, *SEEN[1:]], "heard": HEARD}),
    "true": json.dumps({"seen": [True, *SEEN[1:]], "heard": HEARD}),
    "names": json.dumps({"seen": ["dog"] * 10, "heard": ["dog"] * 10}),
    "a list twice": f'{{"seen": {SEEN}, "seen": {HEARD}, "heard": {HEARD}}}',
    "cut off": NICE[:-20],
    "thought without an end": f"<think>It could be {NICE}",
    "a list of lists": json.dumps([SEEN, HEARD]),
    "infinite": NICE.replace("5", "Infinity", 1),
    "very long number": NICE.replace("5", "9" * 5000, 1),
    "two classes in one second": "seen: 0-3: 5, 3-5: 4\nheard: 0-9: 5",
    "seconds from 1 to 10": "seen: 1-10: 5\nheard: 1-10: 5",
    "a range with a number that is not understood": "seen: 0-3: 5 or 6\nheard: 0-9: 5",
    "nine lines": "\n".join(f"{t}: {s}, {h}" for t, s, h in BY_SECOND[:9]),
    "a second twice": "\n".join(f"{min(t, 8)}: {s}, {h}" for t, s, h in BY_SECOND),
    "deep": "[" * 100_000,
    "many objects": '{"seen": [' * 20_000,
    "many headings": "seen: " * 20_000,
    "many ranges": "seen: " + "0-3: 5, " * 20_000 + "0-3: 4",
    "spaces": "seen:" + " " * 200_000 + "x",
}


@pytest.mark.parametrize("form", READ)
def test_forms_of_an_answer(form: str) -> None:
    rung, text = READ[form]
    assert parse(text, "both", CLASSES) == (rung, tuple(SEEN), tuple(HEARD))


@pytest.mark.parametrize("form", INVALID)
def test_what_cannot_be_read_is_invalid_and_never_guessed(form: str) -> None:
    assert parse(INVALID[form], "both", CLASSES) == ("invalid", None, None)


@pytest.mark.parametrize(("question", "name"), [("sight", "seen"), ("sound", "heard")])
def test_a_control_has_one_list(question: Question, name: str) -> None:
    numbers = BOTH[name]
    texts = {
        "json": json.dumps({name: numbers}),
        "embedded": f"Here: {json.dumps({name: numbers})}",
        "lines": "\n".join(f"second {t}: {n}" for t, n in enumerate(numbers)),
        "ranges": f"{name}: " + ", ".join(f"{t}: {n}" for t, n in enumerate(numbers)),
    }
    for rung, text in texts.items():
        found = parse(text, question, CLASSES)
        assert found.rung == rung
        assert (found.seen, found.heard) == ((tuple(numbers), None) if name == "seen" else (None, tuple(numbers)))


lists = st.lists(st.integers(-1, CLASSES - 1), min_size=10, max_size=10)
dressings = st.sampled_from(["{}", "```json\n{}\n```", "Sure:\n{}", "<think>hm {{</think>{}", "{} I hope this helps."])


@given(lists, lists, dressings, st.sampled_from([None, 1, 2]), st.booleans())
def test_any_answer_is_read_back(
    seen: list[int], heard: list[int], dressing: str, indent: int | None, strings: bool
) -> None:
    said = {name: [str(n) if strings else n for n in each] for name, each in (("seen", seen), ("heard", heard))}
    found = parse(dressing.replace("{{", "{").replace("{}", json.dumps(said, indent=indent), 1), "both", CLASSES)
    assert found.rung == ("json" if dressing == "{}" and not strings else "embedded")
    assert (found.seen, found.heard) == (tuple(seen), tuple(heard))


@given(lists, lists, st.sampled_from([": ", " = ", " -> "]))
def test_any_ranges_are_read_back(seen: list[int], heard: list[int], sign: str) -> None:
    def ranges(numbers: list[int]) -> str:
        parts, start = [], 0
        for t in range(1, 11):
            if t == 10 or numbers[t] != numbers[start]:
                parts.append((f"{start}" if t - 1 == start else f"{start}-{t - 1}") + f"{sign}{numbers[start]}")
                start = t
        return ", ".join(parts)

    found = parse(f"seen: {ranges(seen)}\nheard: {ranges(heard)}", "both", CLASSES)
    assert found == ("ranges", tuple(seen), tuple(heard))


pieces = st.sampled_from(
    [
        *'{}[]",:-|\n 0159',
        "seen",
        "heard",
        "seen: ",
        '"heard": ',
        "0-3: 5",
        "-1, ",
        "second 3",
        "<think>",
        "</think>",
        NICE,
    ]
)


@given(st.lists(pieces, max_size=60).map("".join) | st.text(), st.sampled_from(QUESTIONS), st.integers(1, 70))
def test_whatever_is_said_is_read_as_a_whole_or_not_at_all(text: str, question: Question, classes: int) -> None:
    found = parse(text, question, classes)
    assert found.rung in RUNGS
    for name in ("seen", "heard"):
        numbers = getattr(found, name)
        assert (numbers is not None) == (found.rung != "invalid" and name in LISTS[question])
        assert numbers is None or (len(numbers) == 10 and all(-1 <= n < classes for n in numbers))
