"""A site file is read strictly, and says what is wrong where."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.errors import InputError
from ovavel.service.config.read import economy_of, read_site, remarks, rules_of, site_schema, zone_of
from ovavel.service.config.sinks import Jsonl, Webhook

PLAIN = """
bundle = "imagebind"
data = "/var/lib/ovavel"

[[camera]]
id = "gate"
source = "rtsp://camera/stream"

[[camera]]
id = "yard"
source = "yard.mp4"
loop = true
tz = "Europe/Berlin"
start_margin = 0.3
keep_margin = 0.1
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_site_has_defaults_and_paths_beside_its_file(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, PLAIN))
    assert site.bundle == str(tmp_path / "imagebind")
    assert site.data == "/var/lib/ovavel"
    gate, yard = site.camera
    assert (gate.source, yard.source) == ("rtsp://camera/stream", str(tmp_path / "yard.mp4"))
    assert (str(zone_of(site, gate)), str(zone_of(site, yard))) == ("UTC", "Europe/Berlin")
    assert rules_of(yard).start_margin == 0.3


def test_a_camera_has_the_economy_of_its_site_or_its_own(tmp_path: Path) -> None:
    own = PLAIN.replace('id = "gate"', 'id = "gate"\neconomy = "auto"')
    assert [economy_of(site, each).mode for site in [read_site(write(tmp_path, own))] for each in site.camera] == [
        "auto",
        "exact",
    ]
    site = read_site(write(tmp_path, f'economy = "off"\neconomy_budget = 0.001\n{own}'))
    assert [economy_of(site, each) for each in site.camera] == [Economy(mode="auto", budget=0.001), Economy()]
    site = read_site(write(tmp_path, own.replace("auto", 'auto"\neconomy_budget = 0.003 # "')))
    assert economy_of(site, site.camera[0]).budget == 0.003


def test_what_people_may_not_expect_is_said(tmp_path: Path) -> None:
    changed = PLAIN.replace('id = "gate"', 'id = "gate"\nsound = false\nmask = [[[0, 0], [0.5, 0], [0, 1]]]')
    site = read_site(write(tmp_path, changed))
    assert site.camera[0].mask == (((0, 0), (0.5, 0), (0, 1)),)
    no_events, no_clips = remarks(site)
    assert "no events" in no_events
    assert "transcode" in no_clips
    assert remarks(read_site(write(tmp_path, PLAIN))) == []
    assert "without pictures" in remarks(read_site(write(tmp_path, f"media = false\n{PLAIN}")))[0]


def test_a_source_from_a_file_lies_beside_the_site_file(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, PLAIN.replace("rtsp://camera/stream", "@gate.txt")))
    assert site.camera[0].source == f"@{tmp_path / 'gate.txt'}"


DEVICES = """
[[camera]]
id = "desk"
source = "0"
microphone = "USB Audio"

[[camera]]
id = "hall"
source = "/dev/video2"
sound = false

[[camera]]
id = "shed"
source = "http://camera/mjpeg"
microphone = "1"
"""


def test_devices_are_sources_by_the_names_that_live_has_for_them(tmp_path: Path) -> None:
    *_, desk, hall, shed = read_site(write(tmp_path, PLAIN + DEVICES)).camera
    assert (desk.source, desk.microphone) == ("0", "USB Audio")
    assert (hall.source, hall.microphone) == ("/dev/video2", None)
    assert (shed.source, shed.microphone) == ("http://camera/mjpeg", "1")


def test_a_file_that_is_called_like_a_device_has_a_path(tmp_path: Path) -> None:
    assert read_site(write(tmp_path, PLAIN.replace("yard.mp4", "./0"))).camera[1].source == str(tmp_path / "0")


def test_a_camera_of_this_machine_is_watched_once(tmp_path: Path) -> None:
    again = DEVICES.replace('"/dev/video2"', '"/dev/video0"')
    with pytest.raises(InputError, match="cameras 'desk' and 'hall' both watch /dev/video0") as refused:
        read_site(write(tmp_path, PLAIN + again))
    assert "leave one of them out" in str(refused.value)


def test_two_cameras_may_share_a_microphone(tmp_path: Path) -> None:
    assert read_site(write(tmp_path, PLAIN + DEVICES.replace('"1"', '"USB Audio"'))).camera


def test_devices_have_clips_under_masks(tmp_path: Path) -> None:
    """They are encoded from what is masked; none of a device's own packets could show more."""
    mask = "mask = [[[0, 0], [0.5, 0], [0, 1]]]"
    masked = DEVICES.replace("microphone", f"{mask}\nmicrophone").replace("sound = false", f"{mask}\nsound = false")
    assert [each for each in remarks(read_site(write(tmp_path, PLAIN + masked))) if "mask" in each] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("[[camera]]", "x = 1\n[[camera]]"), "x"),
        (('id = "gate"', 'id = "Gate way"'), "camera[0].id"),
        (('id = "gate"', 'id = "gate\\n"'), "camera[0].id"),
        (('id = "yard"', 'id = "gate"'), "2 cameras are called 'gate'"),
        (('tz = "Europe/Berlin"', 'tz = "Europe/Atlantis"'), "IANA time zone"),
        (('id = "gate"', 'id = "gate"\nmask = [[[0, 0], [1, 1]]]'), "camera[0].mask[0]"),
        (('id = "gate"', 'id = "gate"\nmask = [[[0, 0], [1, 1], [1.1, 0]]]'), "camera[0].mask[0][2]"),
        (('id = "gate"', 'id = "gate"\nmask = [[0, 0, 1]]'), "camera[0].mask[0][0]"),
        (('id = "gate"', 'id = "gate"\nmedia = false\ntranscode = true'), "transcode is for clips"),
        (("[[camera]]", "[clip]\nring_s = 12\n[[camera]]"), "clip.ring_s must be at least 25"),
        (("[[camera]]", "[clip]\npre_s = 200\npost_s = 200\n[[camera]]"), "clip.ring_s must be at least 415"),
        (("[[camera]]", "[keep]\nclips_days = 0\n[[camera]]"), "keep.clips_days"),
        (("[[camera]]", "[keep]\nclips = 3\n[[camera]]"), "clips"),
        (('tz = "Europe/Berlin"', 'tz = "../../etc/passwd"'), "IANA time zone"),
        (("keep_margin = 0.1", "keep_margin = 0.9"), "keep-margin"),
        (("start_margin = 0.3", "start_margin = 3"), "camera[1].start_margin"),
        (('source = "rtsp://camera/stream"', 'source = "rtsp://camera/stream"\nloop = true'), "loop is for a file"),
        (('"rtsp://camera/stream"', '"0"'), "camera 'gate': a camera of this machine such as '0' has no sound"),
        (('"rtsp://camera/stream"', '"0"\nmicrophone = "default"\nloop = true'), "loop is for a file"),
        (('"rtsp://camera/stream"', '"@gate.txt"\nloop = true'), "loop is for a file"),
        (('"yard.mp4"', '"yard.mp4"\nmicrophone = "default"'), "camera 'yard': microphone is for a camera"),
        (('"rtsp://camera/stream"', '"rtsp://camera/stream"\nmicrophone = ""'), "camera[0].microphone"),
        (('"rtsp://camera/stream"', '"rtsp://camera/stream"\nmicrophone = 0'), "camera[0].microphone"),
        (('data = "/var/lib/ovavel"', ""), "data"),
        (('bundle = "imagebind"', "bundle = 3"), "bundle"),
        (("[[camera]]", "[[camera"), "not TOML"),
        (('id = "gate"', 'id = "gate"\neconomy = "some"'), "camera[0].economy`"),
        (('id = "gate"', 'id = "gate"\neconomy_budget = 0.0'), "camera[0].economy_budget`"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    path = write(tmp_path, PLAIN.replace(*change, 1))
    with pytest.raises(InputError) as refused:
        read_site(path)
    assert says in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\0" * 10, b"[" * 100_000, b"a" * (2 << 20)])
def test_what_is_no_site_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        read_site(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            read_site(path)


def test_the_schema_knows_every_field() -> None:
    schema = json.loads(site_schema())
    assert {"bundle", "data", "camera", "tz"} <= schema["$defs"]["Site"]["properties"].keys()
    assert schema["$defs"]["Camera"]["additionalProperties"] is False


SINKS = """
[[sink]]
id = "hook"
kind = "webhook"
address = "@hook.txt"
secret = "env:HOOK_SECRET"
cameras = ["gate"]
quiet_hours = ["22:00-06:30"]
cooldown_s = 300
ca_file = "ca.pem"

[[sink]]
id = "log"
kind = "jsonl"
path = "events.jsonl"
when = "early"
"""


def test_sinks_have_defaults_and_paths_beside_their_file(tmp_path: Path) -> None:
    hook, log = read_site(write(tmp_path, PLAIN + SINKS)).sink
    assert hook == Webhook(
        id="hook",
        address=f"@{tmp_path / 'hook.txt'}",
        secret="env:HOOK_SECRET",
        cameras=("gate",),
        quiet_hours=("22:00-06:30",),
        cooldown_s=300,
        ca_file=str(tmp_path / "ca.pem"),
    )
    assert log == Jsonl(id="log", path=str(tmp_path / "events.jsonl"), when="early")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('kind = "jsonl"', 'kind = "carrier pigeon"'), "carrier pigeon"),
        (('kind = "jsonl"\n', ""), "kind"),
        (('id = "log"', 'id = "hook"'), "2 sinks are called 'hook'"),
        (('cameras = ["gate"]', 'cameras = ["gatee"]'), "sink 'hook': there is no camera 'gatee'"),
        (('"22:00-06:30"', '"22:00-24:30"'), "sink[0].quiet_hours"),
        (('"22:00-06:30"', '"22-6"'), "sink[0].quiet_hours"),
        (("cooldown_s = 300", "cooldown = 300"), "cooldown"),
        (('when = "early"', 'when = "soon"'), "soon"),
        (('path = "events.jsonl"', 'address = "x"'), "address"),
    ],
)
def test_a_sink_that_makes_no_sense_is_named(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    path = write(tmp_path, (PLAIN + SINKS).replace(*change, 1))
    with pytest.raises(InputError) as refused:
        read_site(path)
    assert says in str(refused.value)
    assert str(path) in str(refused.value)


def test_the_sinks_of_the_documentation_are_well_formed(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "service" / "deliveries.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert [each.id for each in read_site(write(tmp_path, PLAIN + example)).sink] == ["house", "phone", "hook", "log"]
