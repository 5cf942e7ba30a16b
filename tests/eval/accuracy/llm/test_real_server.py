"""`transformers serve` with a tiny model that takes stills and sound: a real server, and a real refusal."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.tiny_omni import write_tiny_omni

from ovavel.eval.accuracy.llm.client import Client, Endpoint, NoAnswerError, endpoint_url
from ovavel.eval.accuracy.llm.probe import NAMES, SHOWN, deaf_or_blind
from ovavel.eval.accuracy.llm.prompt import QUESTIONS, Prompt, Question
from ovavel.eval.accuracy.llm.reply import Reply

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NEEDED = {
    "torch": "PyTorch",
    "transformers": "transformers[serving]",
    "fastapi": "transformers[serving]",
    "uvicorn": "transformers[serving]",
    "soundfile": "soundfile",
}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    for module, distribution in NEEDED.items():
        pytest.importorskip(module, reason=f"{distribution} is not installed", exc_type=ImportError)
    pytest.importorskip("transformers.cli.serving", reason="this transformers serves no chat completions")
    pytest.importorskip("transformers.models.gemma4", reason="this transformers has no Gemma 4")
    folder = tmp_path_factory.mktemp("omni")
    write_tiny_omni(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve"]
    options = ["--trust-remote-code", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, str(folder / "model"), *options], env=environment, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log")
            url = endpoint_url(f"http://127.0.0.1:{port}/v1")
            yield Endpoint(url=url, model=str(folder / "model"), timeout_s=300, max_tokens=64)
        finally:
            process.terminate()
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"the server ended: {log.read_text(errors='replace')[-2000:]}")


def replies(endpoint: Endpoint, prompts: list[tuple[Prompt, int]]) -> list[Reply]:
    async def ask() -> list[Reply]:
        async with Client(endpoint) as client:
            return [
                await client.ask(prompt.content(SHOWN[shown].media()), prompt.schema, attempts=1)
                for prompt, shown in prompts
            ]

    try:
        return asyncio.run(ask())
    except NoAnswerError as error:
        pytest.fail(f"the server does not take what it is sent: {error}")


def test_stills_and_sound_reach_the_model(endpoint: Endpoint) -> None:
    prompts = {question: Prompt(question=question, names=NAMES, clip="x") for question in QUESTIONS}
    found = dict(zip(QUESTIONS, replies(endpoint, [(each, 0) for each in prompts.values()]), strict=True))
    assert [reply.status for reply in found.values()] == [200] * 3
    tokens: dict[Question, int] = {}
    for question, reply in found.items():
        assert reply.prompt_tokens
        # a letter is a token; what is beyond the words are stills and sound
        tokens[question] = reply.prompt_tokens - len(prompts[question].text)
    assert tokens["sound"] > 100
    assert tokens["sight"] > 10 * 10
    assert tokens["both"] > tokens["sight"] + 100


def test_random_weights_are_refused_as_deaf_and_blind(endpoint: Endpoint) -> None:
    found = replies(endpoint, [(shown.prompt, place) for place, shown in enumerate(SHOWN)])
    why = deaf_or_blind({shown.name: reply.text for shown, reply in zip(SHOWN, found, strict=True)})
    assert "does not hear" in why
    assert "does not see" in why
