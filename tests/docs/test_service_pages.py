"""The pages for operators: every field with its default, and site files that can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from msgspec import Struct, structs

from ovavel.service.config.read import read_site
from ovavel.service.config.sinks import Apprise, Jsonl, Mqtt, Webhook
from ovavel.service.config.site import Camera, Clips, Keep, Site

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [DOCS / "service.md", *sorted((DOCS / "service").glob("*.md"))]
COMMON = {field.name: field.default for field in structs.fields(Jsonl) if field.name != "path"}
"""Of all sinks."""


def section(title: str) -> dict[str, str]:
    """Field → default, of the table under a heading of the page on configuration."""
    page = (DOCS / "service" / "configuration.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"^##+ {title}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \| .+ \|$", text, re.MULTILINE))


def shown(field: structs.FieldInfo) -> str:
    """The default as the page has it."""
    if field.required:
        return "required"
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, Struct):
        return "below"
    return {None: "–", (): "`[]`"}.get(value, f"`{value:g}`" if isinstance(value, int | float) else "?")


@pytest.mark.parametrize(("title", "kind"), [("The site", Site), ("Camera", Camera), ("Clip", Clips), ("Keep", Keep)])
def test_every_field_of_a_site_file_is_on_the_page_with_its_default(title: str, kind: type[Struct]) -> None:
    assert section(title) == {field.encode_name: shown(field) for field in structs.fields(kind)}


@pytest.mark.parametrize(
    ("title", "kind"), [("MQTT", Mqtt), ("Webhook", Webhook), ("Apprise", Apprise), ("JSON lines", Jsonl)]
)
def test_every_field_of_a_sink_is_on_the_page_with_its_default(title: str, kind: type[Struct]) -> None:
    expected = {field.encode_name: shown(field) for field in structs.fields(kind)}
    assert {**section("Sink"), **section(title)} == expected


def site_files() -> list[tuple[str, str]]:
    """Each whole site file of the pages, with its page."""
    blocks = re.compile(r"^```toml\n(bundle = .*?)^```", re.MULTILINE | re.DOTALL)
    return [(page.stem, text) for page in PAGES for text in blocks.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "text"), site_files())
def test_site_files_of_the_pages_can_be_read(tmp_path: Path, page: str, text: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text)
    assert read_site(path).camera


def test_the_first_steps_have_two_cameras_and_a_broker(tmp_path: Path) -> None:
    (text,) = [text for page, text in site_files() if page == "first-steps"]
    (tmp_path / "site.toml").write_text(text)
    site = read_site(tmp_path / "site.toml")
    assert len(site.camera) == 2
    assert [type(sink) for sink in site.sink] == [Mqtt]


def test_every_alert_is_on_the_page_about_operation() -> None:
    page = (DOCS / "service" / "operation.md").read_text(encoding="utf-8")
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    assert alerts == set(re.findall(r"^\| `(Ovavel\w+)` \|", page, re.MULTILINE))


def test_the_proxy_of_the_page_is_the_one_that_is_tested() -> None:
    page = (DOCS / "service" / "operation.md").read_text(encoding="utf-8")
    conf = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```nginx\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert example.splitlines() == [line for line in conf.splitlines() if not line.lstrip().startswith("#")]


def test_every_test_that_the_threat_model_names_is_there() -> None:
    page = (DOCS / "threat-model.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`(?:tests/[\w/]+/)?(test_\w+\.py)`", page))
    here = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert names - here == set()
