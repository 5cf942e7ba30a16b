"""Whatever is lost has a named cause on the page, in the metrics and in MQTT: each that the code can name."""

from __future__ import annotations

import ast
import html
import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.served import Served, served
from support.web import ask

from ovavel.runtime.types import DropCause, GapCause, Sense
from ovavel.service.capture import feed
from ovavel.service.capture.messages import Captured, Lost
from ovavel.service.config.sinks import Mqtt
from ovavel.service.delivery.topics import Topics, state_topics
from ovavel.service.store import accounts
from ovavel.service.store.care import recovery
from ovavel.service.watch import decider
from ovavel.service.watch.runs import camera_watch
from ovavel.service.watch.runs.camera_watch import Seen

pytestmark = pytest.mark.timeout(300)

SERVICE = Path(__file__).parents[2] / "service"
SENSES: tuple[Sense, ...] = ("vision", "audio")
DROPPED = (GapCause.ENCODER_TOO_SLOW, DropCause.BACKEND_FAILED, DropCause.NOT_LOOKED_AT)
UNWATCHED = (
    *(feed.OFFLINE, feed.END_OF_MEDIA, feed.RECONFIGURED, "capture died", "stopped"),
    *(decider.STARTING, decider.ENCODER_FAILED, decider.STORE_FAILED, recovery.DOWN, camera_watch.CLOCK_STEP),
)
OFF = (feed.SWITCHED_OFF, feed.REMOVED)
"""What a person wanted: time that is accounted for as off, without a cause."""
LACKING = tuple(GapCause)


def named() -> Iterator[tuple[str, str]]:
    """Where a cause is given in the code of the service, and its text."""
    for path in sorted(SERVICE.rglob("*.py")):
        name = ".".join(("ovavel.service", *path.relative_to(SERVICE).with_suffix("").parts))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = {
                "Ended": node.args[:1],
                "_give_up": node.args[1:2],
                "_abandon": node.args[1:2],
                "_emptied": node.args[1:2],
                "advance": [each.value for each in node.keywords if each.arg == "cause"],
            }.get(called, [])
            for argument in given:
                yield from ((f"{path.name}:{node.lineno}", text) for text in texts(argument, name))


def texts(argument: ast.expr, module: str) -> Iterator[str]:
    """The texts that an expression may be; nothing of what only passes on what another place has named."""
    match argument:
        case ast.Constant(value=str(text)) if text:
            yield text
        case ast.IfExp(body=body, orelse=other):
            yield from texts(body, module)
            yield from texts(other, module)
        case ast.Name(id=name) if name.isupper():
            yield getattr(importlib.import_module(module), name)
        case ast.Attribute(value=ast.Name(id=kind), attr=name) if name.isupper():
            yield getattr(getattr(importlib.import_module(module), kind), name)


def test_the_tables_here_have_every_cause_that_the_code_names() -> None:
    found = dict(named())
    assert len(found) >= 12, "the code is read"
    assert set(found.values()) <= {*DROPPED, *UNWATCHED, *OFF}, "each needs a line in the tables of this test"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A camera that has lost something for every cause, five seconds or five windows each."""
    with served(tmp_path_factory.mktemp("site"), users=False) as here:
        service = here.service
        with service.store.write() as transaction:
            at_us = accounts.accounted_us(transaction, "one")
            for cause in DROPPED:
                at_us += 5_000_000
                accounts.advance(transaction, "one", to_us=at_us, outcome="dropped", cause=cause, windows=5)
            for cause in UNWATCHED:
                at_us += 5_000_000
                accounts.advance(transaction, "one", to_us=at_us, outcome="gap", cause=cause)
        gaps = [Lost(sense=sense, cause=cause, start_s=0.0, duration_s=5.0) for sense in SENSES for cause in LACKING]
        service.board.show("one", lacking(tuple(gaps), at_us), Seen(scores=(), names=()))
        service.monitor.look(now_s=1000.0, now_us=at_us)
        yield here


def lacking(gaps: tuple[Lost, ...], at_us: int) -> Captured:
    return Captured(
        index=0,
        start_s=0.0,
        frame=None,
        sound=None,
        picture=None,
        gaps=gaps,
        notices=(),
        monotonic_us=at_us,
        utc_us=at_us,
    )


CASES = [
    *((f"{cause} 5 s", ("losses", cause), f'ovavel_windows_dropped_total{{camera="one",cause="{cause}"}} 5.0')
      for cause in DROPPED),
    *((f"{cause} 5 s", ("losses", cause), f'ovavel_unwatched_seconds_total{{camera="one",cause="{cause}"}} ')
      for cause in UNWATCHED),
    *((f"no {sense}: {cause} 5 s", ("lacking", sense, cause),
       f'ovavel_gap_seconds_total{{camera="one",cause="{cause}",sense="{sense}"}} 5.0')
      for sense in SENSES for cause in LACKING),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "metric"), CASES, ids=[text for text, _, _ in CASES])
def test_each_cause_is_on_the_page_in_the_metrics_and_in_mqtt(
    here: Served, text: str, place: tuple[str, ...], metric: str
) -> None:
    assert text in html.unescape(ask(here.port, "/")[2].decode())
    health = html.unescape(ask(here.port, "/health")[2].decode())
    if place[0] == "losses":
        assert f"{place[-1]} 5" in health
    else:
        assert f"<td>{place[1]}</td><td>{place[2]}</td><td>5</td>" in health
    assert metric in ask(here.port, "/metrics")[2].decode()
    topics = Topics(Mqtt(id="house", address="mqtt://broker"), here.service.site, ("dog",))
    found = json.loads(state_topics(topics, here.service.cameras_now(), set())[topics.of("one", "health")])
    for level in place:
        found = found[level]
    assert found == 5
