"""Exchanges, queues and bindings on RabbitMQ: declared, looked at and compared.

Imports no client: it is given py-amqp's connection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from outbox.runtime.amqp import STALL, Reader
from outbox.runtime.topology import DECLARED, State, TopologyObject

_REFUSED, _NOT_FOUND, _UNEQUAL = 403, 404, 406

_DECLARATIONS: Final = frozenset({(40, 10), (50, 10), (50, 20)})
"""exchange.declare, queue.declare, queue.bind: a refused login or subscription is a 403 too."""

_LASTING: Final[Mapping[str, bool]] = {"durable": True, "auto_delete": False}

_INEQUIVALENT: Final = re.compile(
    r"inequivalent arg '(?P<arg>[^']+)' for .*: received (?:the value )?(?P<want>.+?)"
    r"(?: of type '\w+')? but current is (?:the value )?(?P<have>.+?)(?: of type '\w+')?$"
)

_OPTIONS: Final = {
    "type": "exchange",
    "x-queue-type": "queue_type",
    "x-dead-letter-exchange": "dead_letter_exchange",
    "x-delivery-limit": "delivery_limit",
}
"""Argument of a declaration → our option that sets it."""

_UNSEEN: Final = (
    "AMQP lists no bindings; --declare binds again, which changes nothing if it is there"
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange. With ``type`` None any will do, and a missing one is made as topic."""

    name: str
    type: str | None = "topic"

    def __str__(self) -> str:
        return f"exchange {self.name!r}"

    def declare(self, channel: Any, *, passive: bool = False) -> None:
        """Make it, or with ``passive`` only ask for it."""
        channel.exchange_declare(self.name, self.type or "topic", passive=passive, **_LASTING)


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"queue {self.name!r}"

    def declare(self, channel: Any, *, passive: bool = False) -> None:
        """Make it, or with ``passive`` only ask for it."""
        arguments = dict(self.arguments)
        channel.queue_declare(self.name, passive=passive, arguments=arguments, **_LASTING)


@dataclass(frozen=True, slots=True)
class Binding:
    """From an exchange to a queue; binding twice is binding once."""

    exchange: str
    queue: str
    key: str = ""

    @property
    def name(self) -> str:
        """How a person sees it."""
        key = f" ({self.key})" if self.key else ""
        return f"{self.exchange} -> {self.queue}{key}"

    def declare(self, channel: Any) -> None:
        """Bind."""
        channel.queue_bind(self.queue, self.exchange, routing_key=self.key)


Wanted = Exchange | Queue | Binding


def missing(channel: Any, wanted: Iterable[Wanted]) -> list[Exchange | Queue]:
    """The exchanges and queues that are not there; needs no permission to configure."""
    return [
        each
        for each in wanted
        if not isinstance(each, Binding)
        and _attempt(lambda each=each: each.declare(channel, passive=True)) is not None  # type: ignore[misc]
    ]


def advice(error: BaseException) -> str:
    """What to do about a refused declaration; empty if there is no more to say than the error."""
    code = getattr(error, "reply_code", None)
    if code == _REFUSED and getattr(error, "method_sig", None) in _DECLARATIONS:
        return (
            ". Declare with an account that may configure (outbox_topology --declare,"
            " inbox_topology --declare) and set OPTIONS['declare'] to False here."
        )
    found = _INEQUIVALENT.search(str(error)) if code == _UNEQUAL else None
    return f": {_remedy(found['arg'])}" if found else ""


class Survey:
    """One look at a broker, on a connection of its own: each refusal closes the channel."""

    def __init__(self, connection: Any, reader: Reader, *, declare: bool) -> None:
        """With ``declare`` what is missing is made; what is different never changes."""
        self._reader = reader
        self._declare = declare
        self._channel = connection.channel()
        self._present: set[str] = set()

    def look(self, wanted: Iterable[Wanted]) -> list[TopologyObject]:
        """The objects with their states; an exchange or queue before the bindings that use it."""
        return [self._look_at(each) for each in wanted]

    def _look_at(self, each: Wanted) -> TopologyObject:
        state, detail = self._bind(each) if isinstance(each, Binding) else self._compare(each)
        if state is State.PRESENT:
            self._present.add(f"{_kind(each)} {each.name}")
        return TopologyObject(_kind(each), each.name, state, detail)

    def _compare(self, each: Exchange | Queue) -> tuple[State, str | None]:
        if self._try(lambda: each.declare(self._channel, passive=True)) is not None:
            if not self._declare:
                return State.MISSING, None
            error = self._try(lambda: each.declare(self._channel))
            return (State.MISSING, str(error)) if error else (State.PRESENT, DECLARED)
        if isinstance(each, Exchange) and each.type is None:
            return State.PRESENT, None
        # A passive declaration compares nothing; an active, equal one changes nothing (R12).
        error = self._try(lambda: each.declare(self._channel))
        if error is None:
            return State.PRESENT, None
        if getattr(error, "reply_code", None) == _REFUSED:
            return State.PRESENT, "not compared: this account may not configure it"
        return State.DIFFERENT, _difference(error)

    def _bind(self, binding: Binding) -> tuple[State, str | None]:
        ends = {f"exchange {binding.exchange}", f"queue {binding.queue}"}
        if not ends <= self._present:
            return State.MISSING, "what it would bind is not there, or different"
        if not self._declare:
            return State.UNKNOWN, _UNSEEN
        error = self._try(lambda: binding.declare(self._channel))
        return (State.UNKNOWN, str(error)) if error else (State.PRESENT, None)

    def _try(self, action: Callable[[], None]) -> Exception | None:
        self._reader.deadline = time.monotonic() + STALL
        return _attempt(action)


def _attempt(action: Callable[[], None]) -> Exception | None:
    """The broker's refusal of one object, if it refuses; py-amqp then opens the channel anew."""
    try:
        action()
    except Exception as error:
        if getattr(error, "reply_code", None) not in (_REFUSED, _NOT_FOUND, _UNEQUAL):
            raise
        return error
    return None


def _kind(each: Wanted) -> str:
    return type(each).__name__.lower()


def _difference(error: Exception) -> str:
    """RabbitMQ names the first argument that differs."""
    found = _INEQUIVALENT.search(str(error))
    if found is None:
        return str(error)
    arg, have, want = found["arg"], found["have"], found["want"]
    return f"{arg} is {have}, settings say {want}: {_remedy(arg)}"


def _remedy(argument: str) -> str:
    option = _OPTIONS.get(argument)
    return "delete it once it is empty" + (f", or set OPTIONS[{option!r}]" if option else "")
