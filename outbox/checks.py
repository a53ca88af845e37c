"""System checks of OUTBOX. Only the one of the database opens anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.db import NotSupportedError, connections, router

from outbox.brokers import make_publisher
from outbox.conf import OutboxSettings, get_settings
from outbox.exceptions import InvalidBroker
from outbox.models import OutboxMessage
from outbox.runtime.checks import report, strangers
from outbox.runtime.drivers import require_client
from outbox.runtime.settings import Fault, InvalidSettings
from outbox.store import stores

_TAG: Final = "outbox"
_PATIENT: Final = timedelta(seconds=5)
"""The longest latency, without a wake-up, that surprises nobody."""


def register_all() -> None:
    """Make the checks known to Django."""
    register(check_settings, _TAG)
    register(check_database, _TAG, Tags.database)
    register(check_deployment, _TAG, deploy=True)


def check_settings(app_configs: object, **_kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    """E001 to E005, E010, W002 and W008."""
    faults = strangers("outbox")
    try:
        faults += _risks(get_settings())
        faults += _broker_faults(get_settings())
    except InvalidSettings as error:
        faults += error.faults
    return report(_TAG, faults)


def check_database(
    app_configs: object,  # noqa: ARG001 - Django's signature
    databases: Sequence[str] | None = None,
    **_kwargs: Any,
) -> list[CheckMessage]:
    """E014; connects, so it runs with `check --database` and `migrate` only."""
    alias = router.db_for_write(OutboxMessage)
    return report(_TAG, _database_faults(alias)) if alias in (databases or ()) else []


def check_deployment(app_configs: object, **_kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    """W001, W010 and what the drivers warn of (W005)."""
    try:
        return report(_TAG, _deployment_faults(get_settings()))
    except InvalidSettings:
        return []  # check_settings has said so


def _broker_faults(settings: OutboxSettings) -> Iterator[Fault]:
    for alias in settings.brokers:
        try:
            make_publisher(alias)
        except InvalidBroker as error:
            yield from error.faults
    if settings.wakeup == "celery":
        try:
            require_client("OUTBOX['WAKEUP']", "celery", extra="celery")
        except InvalidBroker as error:
            yield from error.faults


def _risks(settings: OutboxSettings) -> Iterator[Fault]:
    alias = router.db_for_write(OutboxMessage)
    if not settings.require_transaction and not connections[alias].settings_dict["ATOMIC_REQUESTS"]:
        yield Fault(
            "OUTBOX['REQUIRE_TRANSACTION'] is off: a publish() outside of atomic() commits its "
            "message although the rows that it tells of may never be.",
            f"Remove it, or set DATABASES[{alias!r}]['ATOMIC_REQUESTS'] = True.",
            "W002",
        )
    if not django_settings.USE_TZ:
        yield Fault(
            "USE_TZ is False: the times of messages are ambiguous in the hour that a change of "
            "the clocks repeats.",
            "Set USE_TZ = True.",
            "W008",
        )


def _database_faults(alias: str) -> Iterator[Fault]:
    connection = connections[alias]
    hint = f"Upgrade it, or let DATABASES[{alias!r}] name another."
    try:
        oldest, version = stores[alias].oldest, connection.get_database_version()
    except (ImproperlyConfigured, NotSupportedError) as error:
        yield Fault(str(error), hint, "E014")
        return
    if version < oldest:
        needed, found = (".".join(map(str, numbers)) for numbers in (oldest, version))
        text = f"The outbox needs {connection.display_name} {needed}; {alias!r} is {found}."
        yield Fault(text, hint, "E014")


def _deployment_faults(settings: OutboxSettings) -> Iterator[Fault]:
    alias = router.db_for_write(OutboxMessage)
    if connections[alias].vendor == "sqlite":
        yield Fault(
            f"The outbox is in SQLite (database {alias!r}): one host, and one writer at a time.",
            f"Let DATABASES[{alias!r}] name PostgreSQL.",
            "W001",
        )
    longest = settings.poll[1]
    if settings.wakeup is None and longest > _PATIENT:
        yield Fault(
            f"OUTBOX['WAKEUP'] is None, so that a message may wait {longest.total_seconds():g} s "
            "for a relay's next look.",
            "Set OUTBOX['WAKEUP'] = \"celery\", or the second of OUTBOX['POLL'] to 5 s or less.",
            "W010",
        )
    for broker in settings.brokers:
        try:
            yield from make_publisher(broker).check()
        except InvalidBroker:
            continue  # as above
