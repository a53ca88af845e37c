"""System checks of INBOX and of the handlers. They open nothing."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, Final

from django.core.checks import CheckMessage, register
from django.db import connections, router

from inbox import registry
from inbox.brokers import make_consumer
from inbox.brokers.base import Consumer
from inbox.conf import GroupSettings, InboxSettings, get_settings
from inbox.exceptions import InvalidBroker
from inbox.models import InboxMessage
from outbox.runtime.checks import report, strangers
from outbox.runtime.settings import Fault, InvalidSettings, did_you_mean

_TAG: Final = "inbox"


def register_all() -> None:
    """Make the checks known to Django."""
    register(check_settings, _TAG)
    register(check_handlers, _TAG)
    register(check_deployment, _TAG, deploy=True)


def check_settings(app_configs: object, **_kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    """E001, E002, E005 and E006."""
    faults = strangers("inbox", "outbox")
    try:
        settings = get_settings()
    except InvalidSettings as error:
        return report(_TAG, [*faults, *error.faults])
    for found in _consumers(settings):
        if isinstance(found, InvalidBroker):
            faults += found.faults
    return report(_TAG, [*faults, *_database_faults(settings)])


def check_handlers(app_configs: object, **_kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    """E003. A second handler for one topic and group is refused when it is imported."""
    return report(
        _TAG,
        [
            Fault(
                f"The handler of {handler.topic!r} in group {handler.group!r} at {handler.place} "
                "cannot be called with one argument, the message.",
                "Declare it as: def handle(message).",
                "E003",
            )
            for handler in registry.handlers()
            if not _takes_a_message(handler)
        ],
    )


def check_deployment(app_configs: object, **_kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    """What the drivers warn of (W003)."""
    try:
        settings = get_settings()
    except InvalidSettings:
        return []  # check_settings has said so
    return report(
        _TAG,
        [
            fault
            for found in _consumers(settings)
            if isinstance(found, Consumer)
            for fault in found.check()
        ],
    )


def _consumers(settings: InboxSettings) -> Iterator[Consumer | InvalidBroker]:
    """A consumer of each group, and of each broker that no group uses; or why there is none."""
    if not settings.brokers:
        return  # only inbox.process() is used
    # A group that Celery feeds has no broker of ours.
    fed_by_celery = set(registry.groups(by_celery=True))
    groups = sorted({*registry.groups(), *settings.groups} - fed_by_celery)
    for group in groups:
        yield _consumer(settings, group)
    used = {settings.group(group).broker for group in groups}
    for alias in settings.brokers:
        if alias not in used:
            lonely = dataclasses.replace(settings, groups={_TAG: GroupSettings(broker=alias)})
            yield _consumer(lonely, _TAG)


def _consumer(settings: InboxSettings, group: str) -> Consumer | InvalidBroker:
    try:
        return make_consumer(settings, group, registry.topics(group))
    except InvalidBroker as error:
        return error


def _takes_a_message(handler: registry.Handler) -> bool:
    try:
        inspect.signature(handler.function).bind(None)
    except TypeError:
        return False
    except ValueError:
        return True  # a built-in function, whose signature nobody knows
    return True


def _database_faults(settings: InboxSettings) -> Iterator[Fault]:
    for group, entry in settings.groups.items():
        alias, path = entry.database, f"INBOX['GROUPS'][{group!r}]['DATABASE']"
        if alias is None:
            continue
        if alias not in connections:
            text = f"{path} is {alias!r}, which is not in DATABASES."
            yield Fault(text, did_you_mean(alias, connections), "E006")
        elif not router.allow_migrate_model(alias, InboxMessage):
            yield Fault(
                f"{path} is {alias!r}, to which the database routers do not let the inbox's "
                "tables migrate: row and effect could not be one transaction.",
                "Name another database, or allow it in DATABASE_ROUTERS.",
                "E006",
            )
