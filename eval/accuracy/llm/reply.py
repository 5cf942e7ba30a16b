"""What a chat endpoint sends back: a JSON object, or a stream of events where it streams without being asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ovavel.runtime.reporting.text import encodable

__all__ = ["BadReplyError", "Reply", "error_text", "read_reply"]


class BadReplyError(Exception):
    """A response with status 200 that is no answer."""

    def __init__(self, cause: str, message: str) -> None:
        """`cause` is what it is counted as."""
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, or a refusal."""

    text: str
    """What the model said; of a refusal, what the server said."""
    status: int = 200
    """Of HTTP: 200, or that of a refusal."""
    model: str | None = None
    """Which model answered, as the server has it."""
    finish: str | None = None
    """Why it ended: "stop", or "length" where it reached the limit of tokens."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float
    """From the request to the end of the answer."""
    with_schema: bool
    """Whether the answer was asked for by a JSON schema."""
    streamed: bool = False


def read_reply(data: bytes, content_type: str, seconds: float, with_schema: bool) -> Reply:
    """Read the body of a response with status 200.

    Raises:
        BadReplyError: it is no answer.
    """
    kind = content_type.partition(";")[0].strip().lower()
    streamed = kind == "text/event-stream" or data[:5] == b"data:"
    document = _joined(data) if streamed else _json(data, kind)
    if not isinstance(document, dict):
        raise BadReplyError("not an answer", "its answer is not a JSON object")
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        if document.get("error"):
            raise BadReplyError("an error in place of an answer", f"it reports {error_text(data)}")
        raise BadReplyError("no choices", "its answer holds no choices, as chat completions do")
    message, usage = choices[0].get("message"), document.get("usage")
    if not isinstance(message, dict):
        raise BadReplyError("no message", "its answer holds no message, as chat completions do")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        text=encodable(_text(message.get("content"))),
        model=_string(document.get("model")),
        finish=_string(choices[0].get("finish_reason")),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        seconds=seconds,
        with_schema=with_schema,
        streamed=streamed,
    )


def error_text(data: bytes) -> str:
    """Return what a server says is wrong, from the forms in which they do, or the beginning of the body."""
    start = data[:65_536].decode("utf-8", "replace")
    try:
        document = json.loads(start)
    except (ValueError, RecursionError):
        return start[:300]
    for name in ("error", "message", "detail", "msg"):
        found = document.get(name) if isinstance(document, dict) else None
        if isinstance(found, dict):
            found = found.get("message", found)
        if found:
            return str(found)[:300]
    return start[:300]


def _json(data: bytes, kind: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        pass
    if kind and not kind.endswith("json"):
        raise BadReplyError("not JSON", f"it answers with {kind[:100]}, not with JSON; check the address")
    raise BadReplyError("broken JSON", "its answer is broken or incomplete JSON")


def _joined(data: bytes) -> dict[str, Any]:
    """Put the events of a stream together to what the whole answer would have been."""
    text: list[str] = []
    whole: dict[str, Any] = {}
    finish: Any = None
    ended = False
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.startswith("data:"):
            continue
        payload = line.removeprefix("data:").strip()
        if payload == "[DONE]":
            ended = True
            break
        try:
            event = json.loads(payload)
        except (ValueError, RecursionError):
            break
        if not isinstance(event, dict):
            break
        if event.get("error"):
            raise BadReplyError("an error in place of an answer", f"it reports {error_text(payload.encode())}")
        whole |= {name: event[name] for name in ("model", "usage") if event.get(name)}
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        delta = choice.get("delta")
        text.append(_text(delta.get("content")) if isinstance(delta, dict) else "")
        finish = choice.get("finish_reason") or finish
    if not ended and finish is None:
        raise BadReplyError("broken stream", "its stream of events ended in the middle of an answer")
    return {**whole, "choices": [{"message": {"content": "".join(text)}, "finish_reason": finish}]}


def _text(content: Any) -> str:
    """A message's text; it may come in parts, and there may be none."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _string(value: Any) -> str | None:
    return encodable(value)[:500] if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None
