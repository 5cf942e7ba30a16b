import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.reporting.streams import READABLE
from ovavel.runtime.reporting.text import INVISIBLE, encodable, markup, one_line, shown_name
from ovavel.runtime.sinks.as_json import to_json_bytes

HOSTILE = "B\udce4r \x1b[31m\n\r\x9b\u2028\u202e\ufeff\u200b.mp4"
texts = st.text(st.characters(exclude_categories=())) | st.binary().map(os.fsdecode)


@given(texts)
def test_nothing_that_steers_is_left_in_a_name_a_sentence_or_a_page(text: str) -> None:
    for shown in (shown_name(text), one_line(text), markup(text)):
        assert not INVISIBLE.search(shown)
        assert len(shown.splitlines()) <= 1
        shown.encode()


def test_what_cannot_be_shown_is_spelled_out_and_names_stay_apart() -> None:
    assert shown_name(HOSTILE) == r"B\xe4r \x1b[31m\n\r\x9b\u2028\u202e\ufeff\u200b.mp4"
    assert one_line("a \n\t b\x1b") == r"a b\x1b"
    assert shown_name("Bär 犬 👩\u200d🚒") == "Bär 犬 👩\u200d🚒"
    assert len({shown_name(os.fsdecode(name)) for name in (b"B\xe4r.mp4", b"B\xf6r.mp4", b"B\nr.mp4", b"B r.mp4")}) == 4


@given(st.text())
def test_json_reads_back_and_can_be_printed_unchanged(text: str) -> None:
    written = to_json_bytes({"name": encodable(text)})
    assert json.loads(written) == {"name": encodable(text)}
    assert not INVISIBLE.search(written.decode())


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("Bär – 犬 ×2…", "ascii", rb"B\xe4r - \u72ac x2~"),
        ("Bär 犬", "latin-1", b"B\xe4r " + rb"\u72ac"),
        ("B\udce4r", "utf-8", rb"B\xe4r"),
    ],
)
def test_an_encoding_that_lacks_a_character_gets_a_readable_one(text: str, encoding: str, shown: bytes) -> None:
    assert text.encode(encoding, READABLE) == shown
