"""Which function handles which topic in which group."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from asgiref.sync import async_to_sync

from inbox.exceptions import HandlerExists, HandlerNotFound
from outbox.wire import Message

Function = Callable[[Message], object]
F = TypeVar("F", bound=Function)

_GROUP = re.compile(r"[A-Za-z0-9._-]{1,100}")
# Brokers read * and # (RabbitMQ) and a leading ^ (librdkafka) as patterns in a subscription.
_TOPIC = re.compile(r"[^\s*?#^\[\]\x00-\x1f]{1,249}")


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered function."""

    topic: str
    group: str
    function: Function
    by_celery: bool = False
    """Whether Celery brings the messages; otherwise a broker's queue of the group does."""

    @property
    def place(self) -> str:
        """Where it is written: ``module:line``."""
        function = inspect.unwrap(self.function)
        code = getattr(function, "__code__", None)
        line = f":{code.co_firstlineno}" if code else ""
        return f"{getattr(function, '__module__', type(function).__module__)}{line}"

    def call(self, message: Message) -> None:
        """Run it to its end; a coroutine runs in an event loop of this thread."""
        if inspect.iscoroutinefunction(self.function):
            async_to_sync(self.function)(message)
        elif inspect.isawaitable(self.function(message)):
            error = f"The handler at {self.place} returned an awaitable: declare it `async def`."
            raise TypeError(error)


_handlers: dict[tuple[str, str], Handler] = {}


def handler(topic: str, *, group: str) -> Callable[[F], F]:
    """Decorate a function (sync or ``async def``) that takes the `Message`; returns it unchanged.

    It runs in one transaction with the row that makes it run once: everything that it writes to
    that database happens exactly once for each message id. Raises `HandlerExists` when the group
    already handles the topic or is fed by Celery, `ValueError` for a topic or a group that is no
    name.
    """
    return registrar(topic, group)


def registrar(topic: str, group: str, *, by_celery: bool = False) -> Callable[[F], F]:
    """What `handler` and `inbox.celery.inbox_task` share."""
    _check(topic, group)

    def register(function: F) -> F:
        _refuse_generator(function)
        new = Handler(topic, group, function, by_celery)
        old = _handlers.get((group, topic))
        if old is not None:
            message = (
                f"Topic {topic!r} already has a handler in group {group!r} at {old.place}; "
                f"{new.place} needs a group of its own."
            )
            raise HandlerExists(message)
        _refuse_two_feeds(new)
        _refuse_shared_queue(new)
        _handlers[group, topic] = new
        return function

    return register


def resolve(group: str, topic: str) -> Handler:
    """The handler of a topic in a group. Raises `HandlerNotFound`."""
    found = _handlers.get((group, topic))
    if found is None:
        known = ", ".join(topics(group)) or "nothing"
        message = (
            f"No handler for topic {topic!r} in group {group!r}, which handles {known}. Is the "
            "module with the handler imported (a 'handlers' module of an installed app is)?"
        )
        raise HandlerNotFound(message)
    return found


def handlers() -> list[Handler]:
    """All that are registered."""
    return list(_handlers.values())


def topics(group: str) -> list[str]:
    """The topics that a group handles, sorted."""
    return sorted(topic for name, topic in _handlers if name == group)


def groups(topic: str | None = None, *, by_celery: bool | None = None) -> list[str]:
    """The groups that have a handler, sorted; of this topic only, of this feed only."""
    found = {
        handler.group
        for handler in _handlers.values()
        if topic in (None, handler.topic) and by_celery in (None, handler.by_celery)
    }
    return sorted(found)


def swap(handlers: dict[tuple[str, str], Handler]) -> dict[tuple[str, str], Handler]:
    """Put other handlers in place and return those that were registered, for `inbox.testing`."""
    registered = dict(_handlers)
    _handlers.clear()
    _handlers.update(handlers)
    return registered


def _check(topic: str, group: str) -> None:
    if not _GROUP.fullmatch(group):
        message = f"A group is 1 to 100 letters, digits, '.', '_' or '-', not {group!r}."
        raise ValueError(message)
    if not _TOPIC.fullmatch(topic):
        message = (
            f"{topic!r} is no topic: 1 to 249 characters without spaces. A handler names its topic "
            "exactly; patterns (* ? [ #) are not supported."
        )
        raise ValueError(message)


def _refuse_two_feeds(new: Handler) -> None:
    # `inbox_consume` runs the stored retries of its groups and does not import Celery's tasks:
    # it would find no handler for theirs and make them dead.
    for old in _handlers.values():
        if old.group == new.group and old.by_celery != new.by_celery:
            message = (
                f"Group {new.group!r} is fed either by a broker or by Celery: {old.place} is a "
                f"{_feed(old)} and {new.place} a {_feed(new)}. Give one of them another group."
            )
            raise HandlerExists(message)


def _feed(handler: Handler) -> str:
    return "Celery task (@inbox_task)" if handler.by_celery else "consumer's handler (@handler)"


def _refuse_shared_queue(new: Handler) -> None:
    # RabbitMQ's queue is named <group>.<topic>: of two groups on one each would get half.
    queue = f"{new.group}.{new.topic}"
    for old in _handlers.values():
        if f"{old.group}.{old.topic}" == queue and not (old.by_celery or new.by_celery):
            message = (
                f"Group {new.group!r} with topic {new.topic!r} and group {old.group!r} with topic "
                f"{old.topic!r} ({old.place}) would share the queue {queue!r}: rename a group."
            )
            raise HandlerExists(message)


def _refuse_generator(function: Function) -> None:
    # Calling one runs nothing of its body, so the message would be lost without a sign.
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        message = f"A handler does its work when called; {function!r} is a generator."
        raise TypeError(message)
