"""Consumers: one file for each broker. Nothing of a broker's client is imported before `open`."""

from __future__ import annotations

from django.utils.module_loading import import_string

from inbox.brokers.base import Consumer
from inbox.conf import InboxSettings
from inbox.exceptions import InvalidBroker
from outbox.runtime.settings import did_you_mean


def make_consumer(settings: InboxSettings, group: str, topics: list[str]) -> Consumer:
    """The consumer of a group, not opened. Raises `InvalidBroker` that names the fault's place."""
    alias = settings.group(group).broker
    if alias not in settings.brokers:
        raise InvalidBroker(
            f"Group {group!r} uses broker {alias!r}: not in INBOX['BROKERS'].",
            did_you_mean(alias, settings.brokers) if settings.brokers else "",
        )
    broker = settings.brokers[alias]
    path = f"INBOX['BROKERS'][{alias!r}]['BACKEND']"
    try:
        backend = import_string(broker.backend)
    except ImportError as error:
        message = f"{path}: could not import {broker.backend!r}: {error}."
        raise InvalidBroker(message) from error
    if not (isinstance(backend, type) and issubclass(backend, Consumer)):
        message = f"{path}: {broker.backend!r} is no Consumer."
        raise InvalidBroker(message)
    prefetch = settings.group(group).prefetch
    return backend(alias, broker.url, broker.options, group=group, topics=topics, prefetch=prefetch)
