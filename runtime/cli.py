"""The `ovavel` command: finds its sub-commands through the entry-point group `ovavel.commands`.

An entry point names a dataclass with a `run` method that returns the exit code; `"bundle.export"` becomes
`ovavel bundle export`. The first line of its docstring is the summary, its fields are the flags. Loading it must be
cheap: `ovavel --help` loads every command.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import inspect
import io
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint, version
from typing import Any, NoReturn

from ovavel.runtime.errors import MissingExtraError, OvavelError, UsageError
from ovavel.runtime.plugins import plugins
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.reporting.streams import prepare_streams
from ovavel.runtime.reporting.text import INVISIBLE, one_line, shown_name
from ovavel.runtime.system.bounds import check_bounds
from ovavel.runtime.system.memory import lacks_memory
from ovavel.runtime.system.paths import check_paths

__all__ = ["main", "program"]


def program() -> NoReturn:
    """Run `ovavel` as a program, which exits even if a C library hangs in another thread."""
    code = main()
    feed = sys.modules.get("ovavel.runtime.sources.connection")  # imported only where it is used
    if feed is not None and not feed.end_all(feed.EXIT_S):
        os._exit(code)  # everything is written by now; shutting the interpreter down under that thread could crash
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ovavel` with `arguments` (default: the command line's). Returns the exit code; errors end in one line."""
    prepare_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            code = _dispatch(words)
        except SystemExit:  # after --help
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except OvavelError as error:
        # A library that cannot be loaded because memory is low looks as if it were not installed.
        starved = isinstance(error, MissingExtraError) and lacks_memory(error.__cause__)
        _report(_no_memory(error.__cause__ or error) if starved else str(error), words)
        try:
            sys.stdout.flush()
        except OSError:  # a closed output does not turn a failure into success
            _silence_stdout()
        return error.exit_code
    except KeyboardInterrupt:
        _report("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output is gone
        _silence_stdout()
        return 0
    except OSError as error:  # bad input ends in our own errors: this is standard output, closed or full
        if lacks_memory(error):
            _report(_no_memory(error))
            return 1
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)
        where = error.filename or "standard output"
        _report(f"{where}: {reason}", words)
        _silence_stdout()
        return 1
    except Exception as error:
        if not lacks_memory(error):
            raise
        _report(_no_memory(error))
        return 1
    return code


def _report(message: str, words: Sequence[str] = ()) -> None:
    """Print on one line what went wrong, if standard error is still open.

    `words` of the command line may be URLs, whose secrets are redacted in the message in whatever form.
    """
    for word in words:
        message = redacted(message, word)
    with contextlib.suppress(OSError):
        print(f"ovavel: {one_line(redacted(message))}", file=sys.stderr, flush=True)


def _no_memory(error: BaseException) -> str:
    what = str(error).partition("\n")[0] or type(error).__name__
    return f"not enough memory ({what}); close other programs, or raise the limit ('ulimit -v' shows it)"


def _silence_stdout() -> None:
    """Keep Python from reporting another error when it flushes standard output at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(arguments: list[str]) -> int:
    commands = {entry.name: entry for entry in plugins("ovavel.commands")}
    if arguments and arguments[0] in ("-V", "--version"):
        print(f"ovavel {version('ovavel')}")
        return 0
    words = arguments[:2]
    name = next((n for n in (".".join(words), *words[:1]) if n in commands), None)
    if name:
        return _run(name, commands[name], arguments[name.count(".") + 1 :])
    group = {n: entry for n, entry in commands.items() if words and n.startswith(words[0] + ".")}
    if not words or words[0] in ("-h", "--help") or (group and words[1:] in ([], ["-h"], ["--help"])):
        print(_overview(group or commands, " ".join(["ovavel", *words[:1]]) if group else "ovavel"))
        return 0
    near = difflib.get_close_matches(".".join(words) if group else words[0], commands, n=1, cutoff=0.5)
    hint = f"did you mean 'ovavel {near[0].replace('.', ' ')}'?" if near else "'ovavel --help' lists them"
    raise UsageError(f"there is no command {' '.join(words if group else words[:1])!r}; {hint}")


def _run(name: str, entry: EntryPoint, arguments: list[str]) -> int:
    import tyro

    kind = entry.load()

    def parse(arguments: list[str]) -> Any:
        return tyro.cli(
            kind,
            prog=f"ovavel {name.replace('.', ' ')}",
            description=inspect.getdoc(kind),  # all of it: tyro alone would leave the examples out
            args=arguments,
            config=(
                tyro.conf.OmitArgPrefixes,
                tyro.conf.DisallowNone,
                tyro.conf.HelptextFromCommentsOff,
                tyro.conf.FlagCreatePairsOff,
            ),
        )

    shown = [redacted(argument, argument) for argument in arguments]
    with _plain_errors(arguments):
        if shown == arguments:
            command = parse(arguments)
        else:  # help and errors are printed with the arguments that may be shown
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    command = parse(arguments)
            except SystemExit:
                parse(shown)
                raise
    check_bounds(command)
    check_paths(command)
    return int(command.run())


@contextlib.contextmanager
def _plain_errors(arguments: Sequence[str]) -> Iterator[None]:
    """Spell out what cannot be shown where tyro repeats `arguments` on standard error."""
    if not any(map(INVISIBLE.search, arguments)):
        yield
        return
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    finally:
        for line in said.getvalue().splitlines():
            print(shown_name(line), file=sys.stderr)


def _overview(commands: dict[str, EntryPoint], prog: str) -> str:
    summaries = {
        name.replace(".", " "): (inspect.getdoc(entry.load()) or "").partition("\n")[0]
        for name, entry in commands.items()
    }
    width = max(map(len, summaries))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in sorted(summaries.items())]
    return "\n".join(
        [
            f"usage: {prog} <command> [options]",
            "",
            "Live, open-vocabulary audio-visual event localization: which named event is both seen and heard.",
            "",
            *lines,
            "",
            "'ovavel <command> --help' explains each; 'ovavel --version' prints the version.",
        ]
    )
