"""Options of a model that is asked behind a chat endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from ovavel.runtime.commands.options import Maybe
from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.bounds import Meta

if TYPE_CHECKING:
    from ovavel.eval.accuracy.llm.run import Asked
    from ovavel.eval.datasets.dataset import Clip, Dataset

__all__ = ["EndpointOptions"]

_FILE = "answers.jsonl"


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """A model that sees and hears, and how it is asked."""

    llm: Annotated[str | None, arg(metavar="URL", help_behavior_hint="")] = None
    """Ask a model that sees and hears about each clip, behind this OpenAI-compatible chat endpoint, such as
    http://localhost:8000/v1. @FILE takes the URL from the first line of a file, env:NAME from a variable."""
    model: Maybe[str] = None
    """The model to ask, by its name at the endpoint."""
    key_file: Maybe[Path] = None
    """File whose first line is the key of the API; by default the variable OVAVEL_LLM_KEY, and no key without it."""
    controls: bool = False
    """Ask about the stills alone and the sound alone as well: two more rows, and three times the questions."""
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 4
    """Questions at once."""
    timeout_s: Annotated[float, Meta(ge=1, le=3600)] = 120.0
    """Longest time for one answer."""
    max_tokens: Annotated[int, Meta(ge=64, le=1_000_000)] = 1024
    """Most tokens of an answer; a model that thinks before it answers needs more."""

    def check(self, out: Path | None) -> None:
        """Refuse what would not be used, and what is missing. Raises UsageError."""
        if self.llm is None:
            given = {"model": self.model, "key-file": self.key_file, "controls": self.controls or None}
            for flag, value in given.items():
                if value is not None:
                    raise UsageError(f"--{flag} is for a model behind an endpoint: give its address with --llm")
        elif not (self.model or "").strip():
            raise UsageError("--llm needs --model: the name of the model at the endpoint")
        elif out is None:
            raise UsageError(f"--llm needs --out: every raw answer is kept there, in {_FILE}, and asked for once only")

    def ask(self, dataset: Dataset, clips: tuple[Clip, ...], out: Path) -> Asked:
        """Ask about `clips`, and keep the answers in the folder `out`.

        Raises:
            UsageError, InputError: the address or the key cannot be used.
            EndpointError, DatasetError, OutputError, MissingExtraError: see `ask`.
        """
        from ovavel.eval.accuracy.llm.answers import AnswerFile
        from ovavel.eval.accuracy.llm.client import Endpoint, endpoint_url, read_key
        from ovavel.eval.accuracy.llm.prompt import QUESTIONS
        from ovavel.eval.accuracy.llm.run import Task, ask
        from ovavel.runtime.reporting.console import ErrorConsole
        from ovavel.runtime.reporting.text import one_line
        from ovavel.runtime.system.bars import rated_bar
        from ovavel.runtime.system.interrupt import terminated_as_interrupted

        assert self.llm
        assert self.model
        task = Task(
            dataset=dataset,
            clips=clips,
            questions=QUESTIONS if self.controls else QUESTIONS[:1],
            endpoint=Endpoint(
                url=endpoint_url(self.llm),
                model=self.model,
                key=read_key(self.key_file),
                timeout_s=self.timeout_s,
                max_tokens=self.max_tokens,
            ),
            concurrency=self.concurrency,
        )
        try:
            with terminated_as_interrupted(), AnswerFile(out / _FILE) as file, rated_bar("clips") as progress:
                return ask(task, file, progress)
        except KeyboardInterrupt:
            said = one_line(f"{out / _FILE} keeps what was answered: the same command continues")
            ErrorConsole().print(said, markup=False, highlight=False, soft_wrap=True)
            raise
