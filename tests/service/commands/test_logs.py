"""Lines of the log, as text and as JSON."""

from __future__ import annotations

import json
import logging

import pytest

from ovavel.service.commands.logs import set_up_logs


def test_json_is_one_object_a_line_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("json")
    log = logging.getLogger("ovavel.service.capture.feed")
    fields = {"camera": "gate", "cause": "camera offline"}
    log.warning("camera offline: rtsp://me:secret@gate/stream\nfailed", extra=fields)
    log.debug("not shown")
    try:
        raise OSError("http://me:secret@gate/")
    except OSError:
        log.exception("it failed")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first["level"] == "warning"
    assert (first["camera"], first["cause"]) == ("gate", "camera offline")
    assert first["time"].endswith("Z")
    assert "secret" not in str((first, second))
    assert second["message"].startswith("it failed: OSError: http://")


def test_text_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("text")
    logging.getLogger("ovavel.service").info("a\nb", extra={"camera": "gate"})
    logging.getLogger("a.library").info("not shown")
    (line,) = capsys.readouterr().err.splitlines()
    assert " info gate: a" in line
