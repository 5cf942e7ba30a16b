"""What each address of the API takes and gives, for its description and for tests that go through all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from ovavel.service.delivery.deliveries import SinkState
from ovavel.service.evidence.retention import StorageReport
from ovavel.service.store.accounts import Account
from ovavel.service.store.assets import FILE_NAMES, Asset
from ovavel.service.store.events import EventBody
from ovavel.service.store.incidents import IncidentBody
from ovavel.service.store.people import AuditEntry, Identity, Role, TokenFacts, UserFacts
from ovavel.service.store.queries import EventPage
from ovavel.service.store.seconds import Why
from ovavel.service.watch.board import Second
from ovavel.service.watch.economy.site import CameraEconomy
from ovavel.service.web.access.people import AddedToken, NewPassword, NewToken, NewUser
from ovavel.service.web.api import Capacity
from ovavel.service.web.controls import Enable, Snooze, Tried
from ovavel.service.web.events.api import VERDICTS, BulkChange, Changed, EventChange
from ovavel.service.web.events.deletion import BulkDeletion
from ovavel.service.web.preview.api import TriedSettings
from ovavel.service.web.search.api import Asked
from ovavel.service.web.settings import Checked, Reloaded
from ovavel.service.web.words.api import LabelFacts, NewLabel

__all__ = ["OPERATIONS", "CameraState", "Operation", "Problem"]


class Problem(Struct, kw_only=True):
    """Why something cannot be done (RFC 9457)."""

    type: str
    status: int
    title: str


class CameraState(Struct, kw_only=True):
    """A camera and what it does."""

    id: str
    name: str
    state: str
    why: str
    """Why it is in this state; empty where nothing is wrong."""
    last_final_us: int
    """UTC of the newest second that is decided on for good; 0 before the first one."""
    waiting: int
    """Windows that wait for the encoder."""
    lost: str
    """Seconds of it that were lost of late, with their causes; empty where none were."""
    notices: list[str]
    economy: CameraEconomy
    """Which of its pictures are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one address."""

    answer: Any = None
    """Type of what is answered as JSON; None where nothing is."""
    media: str = "application/json"
    """Type of the answer, where that is no JSON."""
    status: int = 200
    role: Role = "view"
    """Who may."""
    body: type[Struct] | None = None
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """JSON schemas of the parameters, by name; none is required."""
    errors: tuple[int, ...] = ()
    """Beside those that any such operation has."""


_TEXT: dict[str, Any] = {"type": "string"}
_FLAG: dict[str, Any] = {"type": "string", "enum": ["true", "false"]}
_TIME = {"type": "integer", "format": "int64", "description": "microseconds of UTC"}
_FILTER: dict[str, dict[str, Any]] = {
    "camera": _TEXT,
    "label": _TEXT,
    "state": {"type": "string", "enum": ["open", "ended", "retracted"]},
    "reviewed": _FLAG,
    "verdict": {"type": "string", "enum": list(VERDICTS)},
    "pinned": _FLAG,
    "from": _TIME,
    "to": _TIME,
}
_PAGE: dict[str, dict[str, Any]] = {
    "cursor": {"type": "string", "pattern": "^[0-9]{1,18}-[0-9a-f-]{1,36}$"},
    "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 50},
}

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/api/v1/cameras"): Operation(answer=list[CameraState]),
    ("GET", "/api/v1/capacity"): Operation(answer=Capacity),
    ("GET", "/api/v1/cameras/{camera}/seconds"): Operation(answer=list[Second]),
    ("GET", "/api/v1/cameras/{camera}/snapshot.webp"): Operation(media="image/webp"),
    ("GET", "/api/v1/cameras/{camera}/accounts"): Operation(answer=list[Account]),
    ("POST", "/api/v1/cameras/{camera}/enable"): Operation(status=204, role="operate", body=Enable),
    ("POST", "/api/v1/cameras/{camera}/snooze"): Operation(status=204, role="operate", body=Snooze),
    ("GET", "/api/v1/outbox"): Operation(answer=list[SinkState]),
    ("POST", "/api/v1/outbox/{sink}/test"): Operation(answer=Tried, role="operate"),
    ("GET", "/api/v1/incidents"): Operation(answer=list[IncidentBody]),
    ("GET", "/api/v1/events"): Operation(answer=EventPage, query=_FILTER | _PAGE, errors=(404,)),
    ("POST", "/api/v1/events:bulk"): Operation(answer=Changed, role="operate", body=BulkChange, errors=(404,)),
    ("GET", "/api/v1/events/{event}"): Operation(answer=EventBody),
    ("PATCH", "/api/v1/events/{event}"): Operation(answer=EventBody, role="operate", body=EventChange),
    ("DELETE", "/api/v1/events/{event}"): Operation(status=204, role="admin", errors=(409,)),
    ("POST", "/api/v1/events:delete"): Operation(answer=Changed, role="admin", body=BulkDeletion, errors=(404, 409)),
    ("GET", "/api/v1/events/{event}/seconds"): Operation(answer=list[Why]),
    ("GET", "/api/v1/export"): Operation(media="application/zip", query=_FILTER, errors=(404, 503)),
    ("GET", "/api/v1/events/{event}/assets"): Operation(answer=list[Asset]),
    **{
        ("GET", f"/api/v1/events/{{event}}/{name}"): Operation(
            media="video/mp4" if kind == "clip" else "image/webp",
            query={"download": {"type": "string", "description": "if given, the file has a name"}},
            errors=(202, 410, 416),
        )
        for kind, name in FILE_NAMES.items()
    },
    ("GET", "/api/v1/labels"): Operation(answer=list[LabelFacts]),
    ("POST", "/api/v1/labels"): Operation(
        answer=LabelFacts, status=201, role="admin", body=NewLabel, errors=(409, 503)
    ),
    ("DELETE", "/api/v1/labels/{label}"): Operation(status=204, role="admin", errors=(409, 422, 503)),
    ("POST", "/api/v1/search"): Operation(media="text/event-stream", body=Asked, errors=(404, 409, 503)),
    ("POST", "/api/v1/preview"): Operation(
        media="text/event-stream", role="operate", body=TriedSettings, errors=(404, 409, 503)
    ),
    ("GET", "/api/v1/config"): Operation(answer=dict[str, Any], role="admin"),
    ("POST", "/api/v1/config:check"): Operation(answer=Checked, role="admin", errors=(409,)),
    ("POST", "/api/v1/config:reload"): Operation(answer=Reloaded, role="admin", errors=(409, 422)),
    ("GET", "/api/v1/storage"): Operation(answer=StorageReport),
    ("GET", "/api/v1/stream"): Operation(media="text/event-stream", errors=(503,)),
    ("GET", "/api/v1/me"): Operation(answer=Identity),
    ("POST", "/api/v1/me/password"): Operation(status=204, body=NewPassword, errors=(403, 429)),
    ("GET", "/api/v1/users"): Operation(answer=list[UserFacts], role="admin"),
    ("POST", "/api/v1/users"): Operation(answer=Identity, status=201, role="admin", body=NewUser, errors=(409,)),
    ("DELETE", "/api/v1/users/{name}"): Operation(status=204, role="admin", errors=(409,)),
    ("GET", "/api/v1/tokens"): Operation(answer=list[TokenFacts], role="admin"),
    ("POST", "/api/v1/tokens"): Operation(answer=AddedToken, status=201, role="admin", body=NewToken, errors=(409,)),
    ("DELETE", "/api/v1/tokens/{name}"): Operation(status=204, role="admin"),
    ("GET", "/api/v1/audit"): Operation(
        answer=list[AuditEntry], role="admin", query={"before": {"type": "integer", "format": "int64", "minimum": 0}}
    ),
    ("GET", "/api/v1/openapi.json"): Operation(answer=dict[str, Any]),
}
