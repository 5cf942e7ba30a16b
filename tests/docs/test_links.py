"""Links between the pages lead somewhere, as files of the repository: Sphinx knows only those under docs/."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)")


def prose(page: Path) -> str:
    """A page without its fenced code and its code spans."""
    text = re.sub(r"^( *)(```+|:::+).*?^\1\2", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "`code`", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a `#` may name in a page: its headings as GitHub and MyST spell them."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        words = re.sub(r"\]\([^)]*\)", "]", heading).lower()
        slug = base = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        for number in range(1, 100):
            if slug not in found:
                break
            slug = f"{base}-{number}"
        found.add(slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    wrong = []
    for target in LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        file = (page.parent / unquote(path)).resolve() if path else page
        if not file.is_file() or not file.is_relative_to(ROOT) or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


def test_a_wrong_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `title`, twice\n\n## A title twice\n\n[a](gone.md) `[b](c.md)`\n\n```\n[d](e.md)\n```\n")
    assert LINK.findall(prose(page)) == ["gone.md"]
    assert anchors(page) == {"a-title-twice", "a-title-twice-1"}


def test_the_readme_fits_a_screen_and_its_lines_the_width() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 100] == []
    assert lines.index("## What it does") < 45  # claim, picture, install, two commands and a first result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = set(
        re.findall(
            r"`((?:runtime|eval|training|export|service|tests|docs)/[\w./-]*)`", page.read_text(encoding="utf-8")
        )
    )
    assert {name for name in named if not (ROOT / name).exists()} == set()
