"""The commands in the shell blocks of README.md and docs/."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from string import Template

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SHELL = {"sh", "bash", "shell", "console"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def shell_lines(page: Path) -> list[list[str]]:
    """Each line of the page's shell blocks as words, with its variables filled in; continued lines are one."""
    lines = []
    for _, kind, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind not in SHELL:
            continue
        variables: dict[str, str] = {}
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            if found := re.fullmatch(r'(\w+)="(.*)"', line):
                variables[found[1]] = found[2]
                continue
            words = shlex.split(Template(line).safe_substitute(variables), comments=True)
            if words:
                lines.append(words)
    return lines


def commands(page: Path) -> list[list[str]]:
    """Arguments of each line that runs ovavel, here or on another machine."""
    found = []
    for words in shell_lines(page):
        words = words[2:] if words[0] == "ssh" else words
        if Path(words[0]).name == "ovavel":
            found.append(words[1:])
    return found
