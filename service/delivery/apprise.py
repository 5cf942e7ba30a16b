"""Messages in plain words to any service that Apprise knows."""

from __future__ import annotations

from collections.abc import Sequence

from ovavel.runtime.errors import InputError, MissingExtraError
from ovavel.service.config.sinks import Apprise
from ovavel.service.delivery.message import Message
from ovavel.service.delivery.sender import Outcome, secret_of
from ovavel.service.store.events import EventBody

try:
    import apprise
except ImportError as error:
    raise MissingExtraError("apprise", "apprise", need="A sink of kind apprise") from error

__all__ = ["AppriseSender"]


class AppriseSender:
    """Sends one message after the other; Apprise limits how long each may take."""

    def __init__(self, sink: Apprise) -> None:
        """Resolve the address.

        Raises:
            InputError: Apprise does not know such an address.
        """
        # No escapes, no commands in texts, and nothing kept on disk: names are input.
        asset = apprise.AppriseAsset(
            app_id="ovavel", app_desc="ovavel", app_url="", async_mode=False, interpret_escapes=False
        )
        self._apprise = apprise.Apprise(asset=asset)
        if not self._apprise.add(secret_of(sink.address)):
            raise InputError(
                f"the address of sink {sink.id!r} is none that Apprise knows; https://appriseit.com lists them"
            )
        self._interrupted = False

    def prepare(self) -> bool:
        """Nothing is kept open."""
        return False

    def send(self, messages: Sequence[Message]) -> list[Outcome]:
        """Send each; Apprise does not say why one failed."""
        return [self._send(each) for each in messages]

    def interrupt(self) -> None:
        """Send nothing more; what is on its way ends by its own limits."""
        self._interrupted = True

    def close(self) -> None:
        """Nothing is open."""

    def _send(self, message: Message) -> Outcome:
        if self._interrupted:
            return Outcome(result="unavailable", why="interrupted")
        kind = apprise.NotifyType.INFO if isinstance(message.body, EventBody) else apprise.NotifyType.WARNING
        sent = self._apprise.notify(
            body=message.text, title="ovavel", notify_type=kind, body_format=apprise.NotifyFormat.TEXT
        )
        if sent:
            return Outcome(result="delivered")
        return Outcome(result="unavailable", why="the service did not take it; 'apprise -vv' with its address says why")
