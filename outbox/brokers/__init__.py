"""Publishers by alias: ``publishers["default"]``, one per thread, made when first asked for."""

from __future__ import annotations

import os
import threading

from django.utils.module_loading import import_string

from outbox.brokers.base import Address, Confirm, Publisher, Status
from outbox.conf import get_settings
from outbox.exceptions import InvalidBroker
from outbox.runtime.drivers import BrokerSettings, read_options
from outbox.runtime.settings import did_you_mean

__all__ = [
    "Address",
    "Confirm",
    "Publisher",
    "PublisherHandler",
    "Status",
    "make_publisher",
    "publishers",
    "read_options",
]


class PublisherHandler(threading.local):
    """Alias → this thread's publisher, which the caller opens.

    `django.utils.connection.BaseConnectionHandler` in all but the base class, which knows neither
    of a fork nor of settings that a test overrides.
    """

    def __init__(self) -> None:
        """Run by `threading.local` in each thread."""
        self._made: dict[str, tuple[BrokerSettings, int, Publisher]] = {}

    def __getitem__(self, alias: str) -> Publisher:
        """Look up or make a publisher.

        Raises `InvalidBroker` for an alias that is not set, a backend that cannot be imported or
        is no publisher, and options that it does not take.
        """
        settings = _settings(alias)
        made_from, pid, publisher = self._made.get(alias, (None, 0, None))
        if publisher is None or made_from is not settings or pid != os.getpid():
            if publisher is not None:
                publisher.close()
            publisher = make_publisher(alias)
            self._made[alias] = (settings, os.getpid(), publisher)
        return publisher

    def close_all(self) -> None:
        """Close this thread's publishers; a later look-up makes new ones."""
        while self._made:
            self._made.popitem()[1][2].close()


def make_publisher(alias: str) -> Publisher:
    """Make a publisher that nobody else has, not opened. Raises as `PublisherHandler` does."""
    settings = _settings(alias)
    return _backend(alias, settings)(alias, settings.url, settings.options)


def _settings(alias: str) -> BrokerSettings:
    brokers = get_settings().brokers
    if alias in brokers:
        return brokers[alias]
    raise InvalidBroker(f"{alias!r} is not in OUTBOX['BROKERS'].", did_you_mean(alias, brokers))


def _backend(alias: str, settings: BrokerSettings) -> type[Publisher]:
    path = f"OUTBOX['BROKERS'][{alias!r}]['BACKEND']"
    try:
        backend: object = import_string(settings.backend)
    except ImportError as error:
        raise InvalidBroker(f"{path} {settings.backend!r} cannot be imported: {error}.") from error
    if isinstance(backend, type) and issubclass(backend, Publisher):
        return backend
    raise InvalidBroker(f"{path} {settings.backend!r} is no subclass of outbox.brokers.Publisher.")


publishers = PublisherHandler()
