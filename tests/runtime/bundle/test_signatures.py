"""A bundle is taken if the right key signed it, and no other one."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.signatures import SIGNATURE, PublicKey, check_signature
from ovavel.runtime.cli import main
from ovavel.runtime.errors import BundleError, MissingExtraError, UsageError

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CLIP = Path(__file__).parents[3] / "eval" / "demo" / "assets" / "clip.mp4"

# Written by minisign 0.11, for a file that holds "hello".
KEY = "RWRXIoBA3HaBIvblxLPiPXEP7EIjyYnWL5C0upwWjuI0iw9XhEocHyd6"
KEY_FILE = f"untrusted comment: minisign public key 228176DC40802257\n{KEY}\n"
OF_HASH = """untrusted comment: signature from minisign secret key
RURXIoBA3HaBIhQimGeVwGufWqFm8p841OMVmrl45YMVwZfaIDTwSN9FCcgL215GnF46f5nxKeTq1LzvH7pMzJ5DKkJLKgUfIgU=
trusted comment: for tests
2+2lhgFtr9P5VImRedwCmSOTnonBbxI3qSHM9P+qUv4nW7GSTe7HKurFPU9LaoYQlbKJFm4+lCSyPxSclwZOAw==
"""
OF_FILE = """untrusted comment: signature from minisign secret key
RWRXIoBA3HaBIvyFn5wH6UlEtppCUI5aEXXCyHHAYeJEEjpE5oIsj84VLAx7jvkVM31gDkDMreeKedFZFKUkodR340WRFST/owk=
trusted comment: legacy
TD7DXz0nl4zapeh0v+5+F3IrkFyZnReiy+sHDbLLQ1ILiJ49juHLZ4zEWyqDhwdAGuxu89SVQ5fDD11AzBiaAA==
"""
PRIVATE, IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes(range(32))), b"identity"
PUBLIC = base64.b64encode(b"Ed" + IDENTITY + PRIVATE.public_key().public_bytes_raw()).decode()


def sign(folder: Path, comment: str = "by the tests") -> None:
    """As `minisign -Sm manifest.json` does."""
    signature = PRIVATE.sign(hashlib.blake2b((folder / "manifest.json").read_bytes()).digest())
    whole = PRIVATE.sign(signature + comment.encode())
    first, second = (base64.b64encode(each).decode() for each in (b"ED" + IDENTITY + signature, whole))
    (folder / SIGNATURE).write_text(f"untrusted comment: x\n{first}\ntrusted comment: {comment}\n{second}\n")


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CLIP.parent / "bundle", tmp_path / "bundle"))


@pytest.mark.parametrize("signature", [OF_HASH, OF_FILE, OF_HASH.replace("\n", "\r\n")])
def test_what_minisign_writes_is_read(tmp_path: Path, signature: str) -> None:
    (tmp_path / SIGNATURE).write_bytes(signature.encode())
    (tmp_path / "key.pub").write_text(KEY_FILE)
    for given_key in (KEY, str(tmp_path / "key.pub")):
        check_signature(tmp_path, b"hello", PublicKey.read(given_key))
    with pytest.raises(BundleError, match="is not as it was signed"):
        check_signature(tmp_path, b"hullo", PublicKey.read(KEY))
    with pytest.raises(BundleError, match="was signed with another key"):
        check_signature(tmp_path, b"hello", PublicKey.read(PUBLIC))


@given(st.sampled_from([OF_HASH, OF_FILE]), st.data())
def test_a_signature_that_was_changed_is_refused(
    tmp_path_factory: pytest.TempPathFactory, signature: str, data: st.DataObject
) -> None:
    """Every bit counts, but for those of the comment that says of itself that it is not to be trusted."""
    before = signature.encode()
    start = data.draw(st.integers(before.index(b"\n"), len(before) - 2))
    after = before[:start] + data.draw(st.binary(min_size=1, max_size=3)) + before[start + 1 :]
    key, folder = PublicKey.read(KEY), tmp_path_factory.mktemp("signed")
    (folder / SIGNATURE).write_bytes(after)
    if after.replace(b"\r\n", b"\n").rstrip() != before.rstrip():
        with pytest.raises(BundleError) as caught:
            check_signature(folder, b"hello", key)
        assert str(caught.value).isprintable()


@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda data: base64.b64encode(data).decode()))
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        PublicKey.read(text)
    assert str(caught.value).isprintable()


def test_a_bundle_is_opened_if_it_is_signed(demo: Path) -> None:
    with pytest.raises(BundleError, match="is not signed: it has no"):
        Bundle.open(demo, signed_by=PUBLIC)
    sign(demo)
    bundle = Bundle.open(demo, signed_by=PUBLIC)
    assert bundle.sha256 == Bundle.open(demo).sha256
    bundle.save_vocabulary(bundle.vocabulary.removed(bundle.vocabulary.names[:1]))
    with pytest.raises(BundleError, match="is not as it was signed"):
        Bundle.open(demo, signed_by=PUBLIC)
    sign(demo)
    Bundle.open(demo, signed_by=PUBLIC)


@pytest.mark.parametrize("kind", ["fifo", "folder", "long", "empty"])
def test_what_is_no_signature_is_refused_and_waited_for_by_nobody(demo: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(demo / SIGNATURE)
    elif kind == "folder":
        (demo / SIGNATURE).mkdir()
    else:
        (demo / SIGNATURE).write_bytes(b"untrusted comment: " + b"x" * (2**20 if kind == "long" else 0))
    with pytest.raises(BundleError, match="is not a minisign signature"):
        Bundle.open(demo, signed_by=PUBLIC)


def test_the_commands_take_the_key(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.pub").write_text(f"untrusted comment: tests\n{PUBLIC}\n")
    wanted = ["--require-signature", str(tmp_path / "key.pub")]
    commands = [
        ["localize", str(CLIP), "--bundle", str(demo), *wanted],
        ["live", str(CLIP), "--bundle", str(demo), "--view", "none", *wanted],
        ["vocab", "try", str(CLIP), "--bundle", str(demo), "--phrases", "small bell ringing quickly", *wanted],
        ["bundle", "check", "--bundle", str(demo), *wanted],
    ]
    for command in commands:
        assert main(command) == 1
        assert "is not signed" in capsys.readouterr().err
    sign(demo)
    assert main(commands[0]) == 0
    assert main(["localize", str(CLIP), "--bundle", str(demo), "--require-signature", "nonsense"]) == 2


def test_without_the_library_that_is_said(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.exceptions", None)
    with pytest.raises(MissingExtraError, match=r"--require-signature needs cryptography.*\[signatures\]"):
        Bundle.open(demo, signed_by=PUBLIC)


def test_a_change_that_was_cut_short_moves_nothing_before_its_signature_is_checked(demo: Path) -> None:
    sign(demo)
    old = {name: (demo / name).read_bytes() for name in ("vocabulary.npz", "manifest.json")}
    bundle = Bundle.open(demo)
    bundle.save_vocabulary(bundle.vocabulary.removed(bundle.vocabulary.names[:1]))
    for name, data in old.items():  # it was cut short after the first move
        (demo / name).rename(demo / f"{name}.new")
        (demo / name).write_bytes(data)
    before = {file.name: file.read_bytes() for file in demo.iterdir()}
    with pytest.raises(BundleError, match="is not as it was signed"):
        Bundle.open(demo, signed_by=PUBLIC)
    assert {file.name: file.read_bytes() for file in demo.iterdir()} == before
    Bundle.open(demo)
    assert not (demo / "manifest.json.new").exists()
