"""Pictures, sound and clips of a running site's events, over HTTP and in a browser."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import web
from support.browser import chromium_page
from support.flashes import watch
from support.service import CLIP, check_assets, site, until

from ovavel.service.config.site import Camera, Clips
from ovavel.service.store.database import Database, rows
from ovavel.service.watch.service import Service
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(400)  # each wait has 90 s

HALF = (((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Server]]:
    """A camera as it comes, and one with a mask whose sound is not kept."""
    folder = tmp_path_factory.mktemp("site")
    cameras = (
        Camera(id="plain", source=CLIP, loop=True),
        Camera(id="masked", source=CLIP, loop=True, mask=HALF, transcode=True, keep_sound=False),
    )
    with Service(site(folder, *cameras, clip=Clips(pre_s=1, post_s=1))) as service:
        server = Server(service, host="127.0.0.1", port=0, token=None)
        service.start()
        server.start()
        until(lambda: ready(service, "plain", "clip") and ready(service, "masked", "clip"), within_s=180)
        yield service, server
        server.stop()
    with Database.open(folder / "data", ballast_bytes=0) as store:
        check_assets(store)


def ready(service: Service, camera: str, kind: str) -> str:
    """An event of this camera whose asset is ready; empty without any."""
    query = (
        "SELECT event.id FROM event JOIN asset ON event_id = event.id WHERE camera_id = ? AND kind = ? "
        "AND asset.state = 'ready' ORDER BY event.id LIMIT 1"
    )
    found = rows(service.store.read, query, (camera, kind))
    return str(found[0][0]) if found else ""


def ask(server: Server, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return web.ask(server.port, path, **headers)


def test_a_clip_comes_whole_and_in_parts(running: tuple[Service, Server], tmp_path: Path) -> None:
    service, server = running
    event = ready(service, "plain", "clip")
    path = f"/api/v1/events/{event}/clip.mp4"
    status, headers, body = ask(server, path)
    assert (status, headers["content-type"], headers["accept-ranges"]) == (200, "video/mp4", "bytes")
    assert "content-disposition" not in headers
    status, headers, part = ask(server, path, Range="bytes=10-19")
    assert (status, part, headers["content-range"]) == (206, body[10:20], f"bytes 10-19/{len(body)}")
    assert ask(server, path, Range="bytes=-5")[2] == body[-5:]
    assert ask(server, path, Range=f"bytes={len(body)}-")[0] == 416
    assert f"plain-{event}.clip.mp4" in ask(server, f"{path}?download")[1]["content-disposition"]
    (tmp_path / "clip.mp4").write_bytes(body)
    seen = watch(tmp_path / "clip.mp4")
    assert seen.codecs == ("h264", "aac")
    assert seen.first_key
    assert seen.duration_s >= 3


def test_a_snapshot_and_a_spectrogram(running: tuple[Service, Server]) -> None:
    service, server = running
    event = ready(service, "plain", "clip")
    until(lambda: ready(service, "plain", "sound"))
    for name, size in (("snapshot.webp", None), ("sound.webp", (800, 256))):
        status, headers, body = ask(server, f"/api/v1/events/{event}/{name}")
        assert (status, headers["content-type"]) == (200, "image/webp")
        picture = Image.open(io.BytesIO(body))
        assert size is None or picture.size[1] == size[1]
        assert np.asarray(picture).std() > 5, "there is something to see"
        known = {"If-None-Match": f'"other", {headers["etag"]}'}
        assert ask(server, f"/api/v1/events/{event}/{name}", **known)[::2] == (304, b"")
        assert ask(server, f"/api/v1/events/{event}/{name}", **{"If-None-Match": '"other"'})[0] == 200
    listed = json.loads(ask(server, f"/api/v1/events/{event}/assets")[2])
    assert {each["kind"]: each["state"] for each in listed} == dict.fromkeys(("clip", "snapshot", "sound"), "ready")


def test_what_is_masked_and_not_kept_is_nowhere(running: tuple[Service, Server], tmp_path: Path) -> None:
    service, server = running
    event = ready(service, "masked", "clip")
    listed = json.loads(ask(server, f"/api/v1/events/{event}/assets")[2])
    assert {each["kind"] for each in listed} == {"clip", "snapshot"}, "no sound, not even as a picture"
    (tmp_path / "clip.mp4").write_bytes(ask(server, f"/api/v1/events/{event}/clip.mp4")[2])
    seen = watch(tmp_path / "clip.mp4")
    assert seen.codecs == ("h264",)
    middle = seen.size[0] // 2
    assert seen.mean[:, : middle - 8].max() < 24
    assert seen.mean[:, middle + 8 :].mean() > 24
    for path in (f"/api/v1/events/{event}/snapshot.webp", "/api/v1/cameras/masked/snapshot.webp"):
        picture = np.asarray(Image.open(io.BytesIO(ask(server, path)[2])).convert("L"))
        assert picture[:, : picture.shape[1] // 2 - 8].max() < 24
    assert ask(server, f"/api/v1/events/{event}/sound.webp")[0] == 404


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ("state = 'pending', cause = NULL", 202, "not finished"),
        ("state = 'failed', cause = 'capture died'", 404, "capture died"),
        ("state = 'removed', cause = 'older than its days'", 410, "older than its days"),
    ],
)
def test_what_is_not_there_says_why(running: tuple[Service, Server], change: str, status: int, says: str) -> None:
    service, server = running
    event = ready(service, "plain", "clip")
    columns = "state, cause, path"
    before = rows(service.store.read, f"SELECT {columns} FROM asset WHERE event_id = ? AND kind = 'clip'", (event,))
    where = "WHERE event_id = ? AND kind = 'clip'"
    with service.store.write() as transaction:
        transaction.execute(f"UPDATE asset SET {change}, path = NULL {where}", (event,))
    try:
        found, headers, body = ask(server, f"/api/v1/events/{event}/clip.mp4")
        assert found == status
        assert says in json.loads(body)["title"]
        assert ("retry-after" in headers) == (status == 202)
    finally:
        with service.store.write() as transaction:
            transaction.execute(f"UPDATE asset SET state = ?, cause = ?, path = ? {where}", (*before[0], event))


@pytest.mark.parametrize("path", ["none/clip.mp4", "none/assets", "..%2f..%2fx/clip.mp4", "../../store.json"])
def test_other_files_are_not_served(running: tuple[Service, Server], path: str) -> None:
    assert ask(running[1], f"/api/v1/events/{path}")[0] == 404


def test_space_and_metrics(running: tuple[Service, Server]) -> None:
    _, server = running
    report: dict[str, Any] = json.loads(ask(server, "/api/v1/storage")[2])
    kinds = {each["kind"]: each for each in report["kinds"]}
    assert kinds["clip"]["files"] >= 2
    assert kinds["clip"]["bytes"] > 0
    assert report["free_bytes"] > 0
    assert report["next"][0]["kind"] == "clip", "clips go first"
    metrics = ask(server, "/metrics")[2]
    assert b'ovavel_storage_bytes{kind="clip"}' in metrics
    assert b"ovavel_storage_free_bytes" in metrics


@pytest.mark.slow
def test_a_browser_plays_a_clip(running: tuple[Service, Server]) -> None:
    service, server = running
    event = ready(service, "plain", "clip")
    with chromium_page("--mute-audio") as page:
        page.goto(f"http://127.0.0.1:{server.port}/api/v1/events/{event}/clip.mp4")
        played = page.evaluate(
            "async () => { const v = document.querySelector('video'); v.muted = true; await v.play();"
            " while (v.currentTime < 0.5) await new Promise(requestAnimationFrame);"
            " v.currentTime = v.duration - 0.3; await new Promise(done => v.onseeked = done);"
            " return [v.duration, v.videoWidth, v.webkitAudioDecodedByteCount]; }"
        )
    assert played[0] >= 3
    assert played[1] > 0
    assert played[2] > 0, "it has sound"
