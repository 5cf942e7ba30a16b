"""What is different in a site file, and what of it needs the service to be started again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.errors import InputError
from ovavel.service.config.changes import FIXED, Changes, compare
from ovavel.service.config.sinks import Jsonl, Webhook
from ovavel.service.config.site import Camera, Clips, Keep, Site

GATE, YARD = Camera(id="gate", source="a.mp4"), Camera(id="yard", source="b.mp4", tz="Europe/Berlin")
FILE = Jsonl(id="file", path="events.jsonl")
SITE = Site(bundle="bundle", data="data", camera=(GATE, YARD), sink=(FILE,))
OTHER: dict[str, Any] = {
    "bundle": "other",
    "data": "other",
    "name": "other",
    "listen": "127.0.0.1:1",
    "token_file": "token",
    "log": "json",
    "base_path": "/cameras",
    "proxies": ("127.0.0.1",),
    "device": "cpu",
    "backend": "openvino",
    "precision": "fp32",
    "threads": 3,
}


def changed(camera: Camera = GATE, **values: Any) -> Site:
    cameras = tuple(msgspec.structs.replace(each, **values) if each is camera else each for each in SITE.camera)
    return msgspec.structs.replace(SITE, camera=cameras)


def of(**values: Any) -> Site:
    return msgspec.structs.replace(SITE, **values)


@pytest.mark.parametrize("name", sorted(FIXED))
def test_what_is_read_at_the_start_alone_needs_another_start(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} cannot change while the service runs; restart the service"):
        compare(SITE, of(**{name: OTHER[name]}))


def test_every_field_of_a_site_is_thought_of() -> None:
    changing = {"camera", "sink", "tz", "media", "clip", "keep", "capacity", "economy", "economy_budget"}
    assert set(Site.__struct_fields__) - FIXED == changing


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (SITE, Changes()),
        (of(camera=(YARD, GATE)), Changes()),
        (of(camera=(GATE,)), Changes(removed=("yard",))),
        (of(camera=(GATE, YARD, Camera(id="door", source="c"))), Changes(added=("door",))),
        (of(camera=(GATE, Camera(id="door", source="b.mp4"))), Changes(added=("door",), removed=("yard",))),
        (changed(source="c.mp4"), Changes(restarted=("gate",))),
        (changed(YARD, every_s=2), Changes(restarted=("yard",))),
        (changed(lag=3), Changes(restarted=("gate",))),
        (changed(microphone="default"), Changes(restarted=("gate",))),
        (changed(name="Gate"), Changes(shown=("gate",))),
        (changed(tz="Asia/Tokyo"), Changes(shown=("gate",))),
        (changed(expected_offline=True), Changes(shown=("gate",))),
        (changed(name="Gate", start_margin=0.5), Changes(restarted=("gate",))),
        (of(tz="Asia/Tokyo"), Changes(shown=("gate",), fields=("tz",))),
        (of(keep=Keep(clips_days=1)), Changes(fields=("keep",))),
        (of(capacity="refuse"), Changes(fields=("capacity",))),
        (of(economy="off"), Changes(restarted=("gate", "yard"), fields=("economy",))),
        (of(economy_budget=0.001), Changes(fields=("economy_budget",))),  # it is for the mode "auto"
        (changed(economy="off"), Changes(restarted=("gate",))),
        (of(camera=(msgspec.structs.replace(GATE, economy="exact"), YARD)), Changes()),
        (of(clip=Clips(pre_s=1)), Changes(restarted=("gate", "yard"), fields=("clip",))),
        (of(media=False), Changes(restarted=("gate", "yard"), fields=("media",))),
        (of(sink=()), Changes(closed=("file",))),
        (of(sink=(FILE, Jsonl(id="two", path="two.jsonl"))), Changes(opened=("two",))),
        (of(sink=(Jsonl(id="file", path="other.jsonl"),)), Changes(opened=("file",), closed=("file",))),
        (
            of(sink=(Webhook(id="file", address="http://x", secret="whsec_x"),)),
            Changes(opened=("file",), closed=("file",)),
        ),
    ],
)
def test_only_what_is_different_changes(after: Site, expected: Changes) -> None:
    assert compare(SITE, after) == expected
    assert compare(after, after) == Changes()


def test_a_camera_that_keeps_nothing_is_not_interrupted_by_what_clips_show() -> None:
    quiet = changed(media=False)
    assert compare(quiet, msgspec.structs.replace(quiet, clip=Clips(pre_s=1))).restarted == ("yard",)
    assert compare(quiet, msgspec.structs.replace(quiet, media=False)).restarted == ("yard",)


CAMERAS = st.lists(
    st.builds(
        Camera,
        id=st.sampled_from("abcd"),
        source=st.sampled_from(["1", "2"]),
        name=st.sampled_from(["", "x"]),
        tz=st.sampled_from(["", "UTC", "Asia/Tokyo"]),
        media=st.booleans(),
    ),
    min_size=1,
    unique_by=lambda each: each.id,
)


@given(before=CAMERAS, after=CAMERAS, site=st.fixed_dictionaries({"media": st.booleans()}))
def test_each_camera_is_in_one_place_and_the_way_back_undoes_it(
    before: list[Camera], after: list[Camera], site: dict[str, bool]
) -> None:
    one, two = of(camera=tuple(before)), of(camera=tuple(after), **site)
    there, back = compare(one, two), compare(two, one)
    groups = (there.added, there.removed, there.restarted, there.shown)
    named = [camera for group in groups for camera in group]
    assert len(named) == len(set(named))
    old, new = ({camera.id for camera in cameras} for cameras in (before, after))
    assert (old | set(there.added)) - set(there.removed) == new
    assert set(there.added) == set(back.removed)
    assert set(there.restarted) == set(back.restarted)
    assert set(there.shown) == set(back.shown)
    assert compare(two, two) == Changes()
