"""A test message to one sink, beside a service that may be running."""

from __future__ import annotations

import time

from ovavel.runtime.errors import OutputError, UsageError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.reporting.text import quoted
from ovavel.runtime.session_info import new_id
from ovavel.service.config.site import Site
from ovavel.service.delivery.deliveries import open_sender
from ovavel.service.delivery.message import Place, test_message
from ovavel.service.delivery.sender import Unavailable

__all__ = ["send_test"]


def send_test(site: Site, name: str) -> None:
    """Send one message to the sink `name`, without its rules.

    Raises:
        UsageError: there is no such sink.
        OutputError: it did not arrive.
    """
    sink = next((each for each in site.sink if each.id == name), None)
    if sink is None:
        known = ", ".join(each.id for each in site.sink) or "none"
        raise UsageError(f"there is no sink {quoted(name)} in the site file; it has {known}")
    place = Place(site)
    sender = open_sender(sink, place)
    try:
        sender.prepare()
        (outcome,) = sender.send([test_message(name, place, id_=new_id(), now_us=time.time_ns() // 1000)])
    except Unavailable as error:
        raise OutputError(f"the test message to {name!r} did not arrive: {redacted(str(error))}") from error
    finally:
        sender.close()
    if outcome.result != "delivered":
        raise OutputError(f"the test message to {name!r} did not arrive: {redacted(outcome.why)}")
    print(f"the test message to {name!r} was delivered")
