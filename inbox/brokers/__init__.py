"""Consumers: one file for each broker. Nothing of a broker's client is imported before `open`."""

from __future__ import annotations

import difflib

from django.utils.module_loading import import_string

from inbox.brokers.base import Consumer
from inbox.conf import InboxSettings
from inbox.exceptions import InvalidBroker


def make_consumer(settings: InboxSettings, group: str, topics: list[str]) -> Consumer:
    """The consumer of a group, not opened. Raises `InvalidBroker` that names the fault's place."""
    alias = settings.group(group).broker
    if alias not in settings.brokers:
        near = difflib.get_close_matches(alias, settings.brokers, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        message = f"Group {group!r} uses broker {alias!r}: not in INBOX['BROKERS'].{hint}"
        raise InvalidBroker(message)
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
