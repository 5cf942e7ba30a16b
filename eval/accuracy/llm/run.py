"""Ask a model about every clip of a split: several at once, resumable, and with every loss counted.

Shapes: N clips, T segments per clip (ten), C classes with the background last.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.accuracy.llm.answers import Answer, AnswerFile, answer_key
from ovavel.eval.accuracy.llm.client import PROBE_ATTEMPTS, Client, Endpoint, NoAnswerError
from ovavel.eval.accuracy.llm.figures import READ_AS, AnswerFigures, LLMRun
from ovavel.eval.accuracy.llm.parse import Parsed, parse
from ovavel.eval.accuracy.llm.probe import NAMES, SHOWN, deaf_or_blind
from ovavel.eval.accuracy.llm.prompt import Prompt, Question, media_sha256, prompt_sha256
from ovavel.eval.accuracy.llm.reply import Reply
from ovavel.eval.datasets.clip_media import SEGMENTS, ClipMedia, DamagedClip
from ovavel.eval.datasets.dataset import Clip, Dataset
from ovavel.eval.datasets.encode import DamagedRecord
from ovavel.runtime.errors import DatasetError, EndpointError
from ovavel.runtime.reporting.text import counts, encodable
from ovavel.runtime.system.progress import Progress, no_progress

__all__ = ["NO_ANSWER", "Asked", "Task", "ask"]

NO_ANSWER = "no answer"
"""Kind of a clip that is left out because the server did not answer: the next run asks again."""
_SILENT = 3
"""After so many clips in a row without an answer the run ends: the server is gone."""
_ALL_REFUSED = 10
"""After so many refusals and no answer at all the run ends: the server takes none of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is asked about which clips."""

    dataset: Dataset
    clips: tuple[Clip, ...]
    questions: tuple[Question, ...]
    endpoint: Endpoint
    concurrency: int = 4


class Asked(NamedTuple):
    """What a model said about the clips that it answered for."""

    clips: tuple[Clip, ...]
    """N clips, in the order of the task."""
    damaged: tuple[DamagedRecord, ...]
    """The other clips: unreadable ones, and those of the kind `NO_ANSWER`."""
    labels: dict[Question, NDArray[np.intp]]
    """(N, T) class indices of each question."""
    run: LLMRun


def ask(
    task: Task,
    file: AnswerFile,
    progress: Progress = no_progress,
    *,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Asked:
    """Ask all questions that `file` has no answer for, write the answers to it, and read all of them.

    The endpoint is probed before the first question. An interrupted call loses nothing but the answers on their way.

    Raises:
        EndpointError: the endpoint is deaf or blind, takes no question, or is gone; answers so far are in `file`.
        DatasetError: no clip could be read and was answered for.
        OutputError: `file` cannot be written.
        MissingExtraError, UsageError: see `Client`.
        KeyboardInterrupt: on SIGINT and SIGTERM.
    """
    try:
        return asyncio.run(_Asking(task, file, progress).all(pause))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class _Asking:
    """One call of `ask`."""

    def __init__(self, task: Task, file: AnswerFile, progress: Progress) -> None:
        self.task, self.file, self.progress = task, file, progress
        self.names = task.dataset.names[:-1]
        self.prompts = {
            question: prompt_sha256(question, self.names, task.endpoint.max_tokens) for question in task.questions
        }
        self.answers: dict[tuple[int, Question], Answer] = {}
        self.damaged: dict[int, DamagedRecord] = {}
        self.kept = self.asked = self.refused = self.silent = self.invalid = self.done = 0
        self.probed = False
        self.probing = asyncio.Lock()

    async def all(self, pause: Callable[[float], Awaitable[None]]) -> Asked:
        running = asyncio.current_task()
        main = threading.current_thread() is threading.main_thread()
        if running and main and signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            # an exception raised in the middle of another task would be reported as lost
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        async with Client(self.task.endpoint, pause=pause) as self.client:
            places = iter(range(len(self.task.clips)))
            self._report()
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self.task.concurrency):
                        group.create_task(self._work(places))
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from None
            return self._read()

    async def _work(self, places: Iterator[int]) -> None:
        for place in places:
            await self._clip(place)
            self.done += 1
            self._report()

    async def _clip(self, place: int) -> None:
        clip = self.task.clips[place]
        try:
            media = await asyncio.to_thread(self.task.dataset.media, clip)
        except DamagedClip as damage:
            self._lose(place, damage.kind, str(damage))
            return
        digest = await asyncio.to_thread(media_sha256, media)
        for question in self.task.questions:
            prompt = Prompt(question=question, names=self.names, clip=f"{clip.split}/{clip.name}")
            try:
                answer = await self._answer(prompt, f"{clip.split}/{clip.category}/{clip.name}", media, digest)
            except NoAnswerError as error:
                self._lose(place, NO_ANSWER, str(error))
                self.silent += 1
                if self.silent >= _SILENT:
                    raise EndpointError(
                        f"{error}; {self.silent} clips in a row got no answer, so the run ends here. "
                        f"{self.file.path} keeps what was answered: the same command continues"
                    ) from None
                return
            self.answers[place, question] = answer
            self.invalid += answer.status == 200 and _parse(answer, len(self.names)).rung == "invalid"

    async def _answer(self, prompt: Prompt, clip: str, media: ClipMedia, digest: str) -> Answer:
        endpoint, sha256 = self.task.endpoint, self.prompts[prompt.question]
        key = answer_key(server=endpoint.server, model=endpoint.model, prompt=sha256, clip=clip, media=digest)
        answer = self.file.get(key)
        if answer:
            self.kept += 1
            return answer
        async with self.probing:
            if not self.probed:
                await self._probe()
                self.probed = True
        content = await asyncio.to_thread(prompt.content, media)
        reply = await self.client.ask(content, prompt.schema)
        answer = self._stored(reply, prompt, key=key, clip=clip, prompt_sha256=sha256, media_sha256=digest)
        self.silent = 0
        if reply.status == 200:
            self.asked += 1
        else:
            self.refused += 1
            if self.refused >= _ALL_REFUSED and not self.asked:
                raise EndpointError(
                    f"{endpoint.server} refused all of the first {self.refused} questions: HTTP {reply.status}: "
                    f"{reply.text}"
                )
        return answer

    async def _probe(self) -> None:
        """Find out whether the endpoint hears and sees. Raises EndpointError if it does not."""
        endpoint, said = self.task.endpoint, dict[str, str]()
        sha256 = prompt_sha256("both", NAMES, endpoint.max_tokens)
        for place, shown in enumerate(SHOWN):
            self.progress("checking that the model sees and hears", place, len(SHOWN))
            media, prompt, clip = shown.media(), shown.prompt, f"probe/{shown.name}"
            content = await asyncio.to_thread(prompt.content, media)
            try:
                reply = await self.client.ask(content, prompt.schema, attempts=PROBE_ATTEMPTS)
            except NoAnswerError as error:
                raise EndpointError(f"{error}; check the address, and that the server runs") from None
            digest = media_sha256(media)
            key = answer_key(server=endpoint.server, model=endpoint.model, prompt=sha256, clip=clip, media=digest)
            self._stored(reply, prompt, key=key, clip=clip, prompt_sha256=sha256, media_sha256=digest)
            if reply.status != 200:
                raise EndpointError(
                    f"{endpoint.server} refuses stills with sound: HTTP {reply.status}: {reply.text}; it has to take "
                    "ten image_url parts and one input_audio part in a message"
                )
            said[shown.name] = reply.text
        if why := deaf_or_blind(said):
            raise EndpointError(f"{endpoint.model} at {endpoint.server} is refused: {why}")
        self._report()

    def _stored(
        self, reply: Reply, prompt: Prompt, *, key: str, clip: str, prompt_sha256: str, media_sha256: str
    ) -> Answer:
        endpoint = self.task.endpoint
        answer = Answer(
            key=key,
            clip=encodable(clip),
            question=prompt.question,
            text=reply.text,
            status=reply.status,
            server=encodable(endpoint.server),
            model=encodable(endpoint.model),
            answered_as=reply.model,
            prompt_sha256=prompt_sha256,
            media_sha256=media_sha256,
            with_schema=reply.with_schema,
            finish=reply.finish,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            seconds=round(reply.seconds, 3),
        )
        self.file.add(answer)
        return answer

    def _lose(self, place: int, kind: str, message: str) -> None:
        clip = self.task.clips[place]
        self.damaged[place] = DamagedRecord(
            split=clip.split, name=clip.name, category=clip.category, kind=kind, message=message
        )

    def _report(self) -> None:
        lost = {"invalid": self.invalid, "refused": self.refused, "left out": len(self.damaged)}
        note = ", ".join(f"{count} {what}" for what, count in lost.items() if count)
        self.progress("asking about clips", self.done, len(self.task.clips), note)

    def _read(self) -> Asked:
        """Read all answers."""
        task = self.task
        places = [place for place in range(len(task.clips)) if place not in self.damaged]
        if not places:
            kinds = counts(Counter(record.kind for record in self.damaged.values()))
            raise DatasetError(
                f"all {len(task.clips)} clips are damaged or without an answer: {kinds}; the first one: "
                f"{self.damaged[0].message}"
            )
        labels: dict[Question, NDArray[np.intp]] = {}
        figures: list[AnswerFigures] = []
        for question in task.questions:
            answers = [self.answers[place, question] for place in places]
            read = [_parse(answer, len(self.names)) for answer in answers]
            orders = [
                Prompt(question=question, names=self.names, clip=f"{clip.split}/{clip.name}").order
                for clip in (task.clips[place] for place in places)
            ]
            labels[question] = np.array([decide(*each) for each in zip(read, orders, strict=True)], np.intp)
            figures.append(_figures(question, answers, read))
        everything = [self.answers[place, question] for place in places for question in task.questions]
        return Asked(
            clips=tuple(task.clips[place] for place in places),
            damaged=tuple(self.damaged[place] for place in sorted(self.damaged)),
            labels=labels,
            run=LLMRun(
                server=task.endpoint.server,
                model=task.endpoint.model,
                answered_as=dict(Counter(each.answered_as or "no name" for each in everything if each.status == 200)),
                prompt_sha256=self.prompts,
                max_tokens=task.endpoint.max_tokens,
                concurrency=task.concurrency,
                kept=self.kept,
                asked=self.asked,
                file=self.file.path.name,
                file_damage=self.file.damage,
                failures=dict(self.client.failures),
                without_schema=sum(not answer.with_schema for answer in everything),
                no_schema=self.client.no_schema or "",
                figures=tuple(figures),
            ),
        )


def decide(parsed: Parsed, order: Sequence[int]) -> list[int]:
    """T class indices of an answer: the class that is both seen and heard, or that of the one sense asked for.

    `order` has the class index of each number of the list; the background, one above the last, stands for the rest.
    """
    background = len(order)
    lists = [numbers for numbers in (parsed.seen, parsed.heard) if numbers is not None]
    if not lists:
        return [background] * SEGMENTS
    return [
        order[numbers[0]] if numbers[0] >= 0 and len(set(numbers)) == 1 else background
        for numbers in zip(*lists, strict=True)
    ]


def _parse(answer: Answer, classes: int) -> Parsed:
    if answer.status != 200:
        return Parsed("invalid", None, None)
    return parse(answer.text, answer.question, classes)


def _figures(question: Question, answers: Sequence[Answer], read: Sequence[Parsed]) -> AnswerFigures:
    rungs = Counter(
        parsed.rung if answer.status == 200 else "refused" for answer, parsed in zip(answers, read, strict=True)
    )
    return AnswerFigures(
        question=question,
        read_as={name: rungs[name] for name in READ_AS},
        cut_off=sum(answer.finish == "length" for answer in answers),
        prompt_tokens=_mean([answer.prompt_tokens for answer in answers]),
        completion_tokens=_mean([answer.completion_tokens for answer in answers]),
        seconds=_mean([answer.seconds for answer in answers]) or 0.0,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
