"""No text shows what an address keeps secret."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from av.error import FFmpegError
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.reporting.redaction import redacted, without_secrets
from ovavel.runtime.sources.access import address_of


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://camera.local/stream", "rtsp://camera.local/stream"),
        ("rtsp://camera.local:554/a/b.sdp", "rtsp://camera.local:554/a/b.sdp"),
        ("udp://239.0.0.1:1234", "udp://239.0.0.1:1234"),
        ("http://[fe80::1]:8080/x", "http://[fe80::1]:8080/x"),
        ("rtsp://user:secret@camera/stream", "rtsp://camera/stream"),
        ("rtsp://secret@camera/stream", "rtsp://camera/stream"),
        ("rtsp://user:sec/ret@camera:554/stream", "rtsp://camera:554/stream"),
        ("rtsp://user:12/34@camera/stream", "rtsp://camera/stream"),
        ("rtsp://user:sec@ret@camera/stream", "rtsp://camera/stream"),
        ("rtsp://user:s?e#c/r@e t@camera/stream", "rtsp://camera/stream"),
        ("rtsp://user:@camera/stream", "rtsp://camera/stream"),
        ("http://camera/video?user=u&pwd=secret", "http://camera/video?***"),
        ("http://camera/video?token=secret#api_key=secret", "http://camera/video?***"),
        ("http://camera/video?mail=me@home", "http://camera/video?***"),
        ("http://camera?secret", "http://camera?***"),
        ("http://camera/video#secret", "http://camera/video#***"),
        ("http://user:pw@camera/video?token=secret", "http://camera/video?***"),
        ("rtsp://camera/user=admin_password=secret_channel=1.sdp", "rtsp://camera/user=***"),
        ("rtsp://camera/user=admin&password=secret/live", "rtsp://camera/user=***/live"),
        ("srt://host:9000?passphrase=secret", "srt://host:9000?***"),
        ("RTSP://user:secret@camera", "RTSP://camera"),
        # meant to be an address
        ("rtsp:/user:secret@camera/x", "rtsp:/camera/x"),
        ("rtsp:user:secret@camera/x", "rtsp:camera/x"),
        ("user:secret@camera/x", "camera/x"),
        # none
        ("clip.mp4", "clip.mp4"),
        ("/data/a=b/clip?.mp4", "/data/a=b/clip?.mp4"),
        ("/data/12:30@home.mp4", "/data/12:30@home.mp4"),
        ("file:///data/a=b.mp4?x", "file:///data/a=b.mp4?x"),
        ("me@home.mp4", "me@home.mp4"),
        ("C:/clips/a.mp4", "C:/clips/a.mp4"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert without_secrets(address) == shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open rtsp://u:secret@cam/x, trying again", "cannot open rtsp://cam/x, trying again"),
        ("[Errno 5] I/O error: 'http://cam/x?pwd=secret'", "[Errno 5] I/O error: 'http://cam/x?***'"),
        ("(http://cam/x?pwd=secret); and rtsp://u:secret@b", "(http://cam/x?***); and rtsp://b"),
        ("there is no file rtsp:/u:secret@cam/x; check", "there is no file rtsp:/cam/x; check"),
        ("there is no file rtsp:u:secret@cam/x; check", "there is no file rtsp:cam/x; check"),
        ("one camera at most: rtsp://u:p/q@a/, http://b?t=1", "one camera at most: rtsp://a/, http://b?***"),
        ("12:30 lost: http://cam:80/a (it ended)", "12:30 lost: http://cam:80/a (it ended)"),
        ("gap at 3:04.5 @ 25 fps, a/b", "gap at 3:04.5 @ 25 fps, a/b"),
        ("cannot open //u:secret@h/x here", "cannot open //h/x here"),
        ("cannot open '///secret@h/x'", "cannot open '///h/x'"),
        ("cannot open u:secret@h/x: refused", "cannot open h/x: refused"),
        ("(--camera=u:secret@h/x)", "(--camera=h/x)"),
        (
            "/data/12:30@home.mp4 and data/12:30@home.mp4 are damaged",
            "/data/12:30@home.mp4 and data/12:30@home.mp4 are damaged",
        ),
        (
            "//share/a=b/clip.mp4 is damaged; C:/clips/me@home.mp4, too",
            "//share/a=b/clip.mp4 is damaged; C:/clips/me@home.mp4, too",
        ),
        ("write to me@home: 12:30", "write to me@home: 12:30"),
    ],
)
def test_addresses_in_a_sentence(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown


SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=4, max_size=12).map(
    lambda text: f"Q{text}Z"
)


@given(SECRET)
def test_no_secret_of_a_known_address_is_left_in_any_text(secret: str) -> None:
    for address in (
        f"rtsp://admin:{secret}@camera.local:554/stream",
        f"http://camera.local/video?user=admin&pwd={secret}",
        f"http://camera.local/video#{secret}",
    ):
        assert secret not in without_secrets(address)
        for text in (f"error: {address!r} failed", f"{address}: refused", f"[tcp] Failed to resolve {secret}: x"):
            assert secret not in redacted(text, address)


def test_what_ffmpeg_says_of_an_address_it_cannot_open() -> None:
    address = "http://user:pass'word@127.0.0.1:9/x?token=secret"
    with pytest.raises(FFmpegError) as refused:
        av.open(address)
    assert "secret" in str(refused.value), "this is why"
    shown = redacted(str(refused.value), address)
    assert "127.0.0.1:9/x?***" in shown
    assert "secret" not in shown
    assert "word" not in shown


CHARACTERS = st.text(st.characters(exclude_categories=("Cs",)), min_size=4, max_size=12).map(lambda text: f"Q{text}Z")
SCHEMES = st.sampled_from(["http", "https", "rtsp", "rtsps", "rtp", "udp", "tcp", "tls", "srt", "rtmp", "ftp", "RTSP"])
KEYS = st.sampled_from(["pwd", "password", "token", "api_key", "auth", "user", "x", "sig", "X-Amz-Signature"])


@given(
    CHARACTERS, SCHEMES, KEYS, st.sampled_from(["://", ":/", ":"]), st.sampled_from(["cam", "[fe80::1]", "10.0.0.1:8"])
)
def test_no_secret_is_left_wherever_it_stands_in_an_address(
    secret: str, scheme: str, key: str, slashes: str, host: str
) -> None:
    addresses = [f"{scheme}{slashes}admin:{secret}@{host}/stream", f"{scheme}{slashes}:{secret}@{host}"]
    plain = not set(secret) & set("@")  # what follows an @ in a query may be a host, or not
    addresses += [f"{scheme}://{host}/x?{key}={secret}", f"{scheme}://{host}/x#{key}={secret}"] if plain else []
    if not set(secret) & set("@/?#:"):
        addresses += [f"{scheme}://{host}/{key}={secret}/1", f"{scheme}://{secret}@{host}/x"]
    for address in addresses:
        assert secret not in without_secrets(address)
        assert secret not in repr(without_secrets(address))
        for text in (
            address,
            f"{address!r}",
            f"cannot open {address}: refused",
            f"<{address}>",
            f"{address}\n{address}",
        ):
            assert secret not in redacted(text, address)
            assert secret not in redacted(f"--input={text}", f"--input={address}")


@given(
    st.sampled_from(["", "//", "///", "rtsp:", "rtsp:/", "rtsp://", "rtsp:///", "http:////"]),
    st.text("abcXYZ019-_./@", min_size=4, max_size=20),
)
def test_no_password_is_left_however_many_slashes_there_are(slashes: str, noise: str) -> None:
    secret = f"S3CRET{noise}"
    assert "S3CRET" not in without_secrets(f"{slashes}u:{secret}@host/x")


IN_A_SENTENCE = st.text(
    st.characters(exclude_categories=("Cs", "Z", "C"), exclude_characters="'\"<>`"), min_size=1, max_size=12
).map(lambda text: f"S3CRET{text}")


@given(
    st.sampled_from(["", "//", "///", "rtsp:", "rtsp:/", "rtsp://", "tls://", "srt:////"]),
    st.text("abcXYZ019-_.", max_size=6),
    IN_A_SENTENCE,
    st.sampled_from(["cam", "10.0.0.1:8", "[fe80::1]", "user.name"]),
    st.sampled_from(["{}", "cannot open {} here", "({}); refused", "{!r}: refused", "--input={}", "<{}>", "{0}, {0}"]),
)
def test_no_password_is_left_in_a_sentence_with_a_scheme_or_without(
    scheme: str, user: str, secret: str, host: str, sentence: str
) -> None:
    assert "S3CRET" not in redacted(sentence.format(f"{scheme}{user}:{secret}@{host}/x"))


def test_paths_with_two_slashes_are_shown() -> None:
    assert without_secrets("//share/a=b/clip.mp4") == "//share/a=b/clip.mp4"


@pytest.mark.parametrize("kind", ["file", "variable"])
def test_secrets_of_an_address_that_was_read_are_in_no_message(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "rtsp://u:hunter2zz@host/live?token=0123456789"
    (tmp_path / "address").write_text(address + "\n")
    monkeypatch.setenv("OVAVEL_TEST_ADDRESS", address)
    assert address_of(f"@{tmp_path}/address" if kind == "file" else "env:OVAVEL_TEST_ADDRESS") == address
    assert redacted("login hunter2zz failed, 0123456789 is no token") == "login *** failed, *** is no token"
    assert redacted(f"cannot open {address}: refused") == "cannot open rtsp://host/live?***: refused"
