"""What every page has: its security policy, and the line that says how messages travel here."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.utils.functional import SimpleLazyObject

from demo_app import embedded
from demo_app.demo import relay

_POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_BROKERS: Final = {"memory": "memory broker", "rabbitmq": "RabbitMQ", "kafka": "Kafka"}


@dataclass(frozen=True, slots=True)
class Status:
    """How messages travel here, in words."""

    unsent: int
    dead: int
    broker: str
    relay: str
    embedded: bool


def content_security_policy(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: nothing comes from elsewhere, and nothing inline runs."""

    def respond(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    return respond


def status(request: HttpRequest) -> dict[str, Any]:
    """Context processor; pages that do not show the status (the admin's) do not pay for it."""
    return {
        "status": SimpleLazyObject(_status),
        "basket_size": SimpleLazyObject(lambda: sum(request.session.get("basket", {}).values())),
    }


def _status() -> Status:
    answer = io.StringIO()
    call_command("outbox_stats", json=True, stdout=answer)
    totals = json.loads(answer.getvalue())["totals"]
    return Status(
        unsent=totals["pending"] + totals["retrying"] + totals["parked"],
        dead=totals["dead"],
        broker=_broker(),
        relay=_relay(),
        embedded=embedded.running(),
    )


def _broker() -> str:
    driver = settings.OUTBOX["BROKERS"]["default"]["BACKEND"].split(".")[-2]
    return getattr(settings, "DEMO_BROKER", _BROKERS.get(driver, driver))


def _relay() -> str:
    if embedded.running():
        return "a thread of this web server"
    if not hasattr(settings, "DEMO_DIR"):
        return "outbox_relay or a Celery worker, started by you"
    process = relay.standing()
    if process is None or not process.alive:
        return "nobody: the relay is being started again"
    return f"a Celery worker, process {process.pid}"
