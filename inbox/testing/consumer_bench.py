"""What a driver's author fills in for `ConsumerContract`, and what its tests are made of."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from inbox.brokers.base import Consumer
from inbox.delivery import Delivery, Disposition
from inbox.exceptions import ConsumerUnavailable
from outbox.runtime.proving import equal, holds, raises
from outbox.wire import Message, to_headers

_RULE: Final = "Broken rule of inbox.brokers.base.Consumer: "
DELIVERED: Final = _RULE + "each message is delivered, with its headers and bytes unchanged."
SETTLED: Final = _RULE + "ACK is for good, and what is not settled comes again."
RETRIED: Final = _RULE + "what is settled with RETRY comes again."
REDELIVERED: Final = _RULE + "what may have been handed out before says redelivered."
DEAD_LETTERS: Final = _RULE + "what is settled with DEAD goes to the broker's dead letters."
BOUNDED: Final = _RULE + "at most prefetch deliveries are handed out and not settled."
UNJUDGED: Final = _RULE + "bytes that are no message are delivered all the same."
OPENED: Final = _RULE + "open() does nothing when connected; close() never raises."
LOST: Final = _RULE + (
    "a lost or missing connection raises ConsumerUnavailable from any method, within seconds."
)
CAUSE: Final = _RULE + "no third-party exception leaves the driver; it stays in __cause__."
STALE: Final = _RULE + "settling a delivery of a connection that has ended does nothing."
ONE_OWNER: Final = _RULE + "use in a forked child raises ConsumerUnavailable and harms nobody."
LAZY: Final = _RULE + "nothing is opened or imported before open()."
OPTIONS: Final = _RULE + "a wrong option is refused with InvalidBroker that names it."
AWAKE: Final = _RULE + "poll() comes back with the first delivery; it waits its timeout for none."


class ConsumerBench:
    """The hooks of `ConsumerContract`. Each test gets an instance of its own."""

    topic: str = "contract.orders"
    prefix: ClassVar[str] = "ce-"
    """What the transport puts before a CloudEvents attribute; Kafka says ``ce_``."""
    retries_first: ClassVar[bool] = False
    """Does what is settled with RETRY come again before what is behind it?"""
    option: ClassVar[str] = ""
    """One of the driver's options, which is then misspelt; empty: it has none."""
    forwards_options: ClassVar[bool] = False
    """Are unknown options handed to the client library, which refuses them in `open`?"""
    client_modules: ClassVar[Sequence[str]] = ()
    """Modules that must not be imported before `open`, such as ``("kombu", "amqp")``."""
    patience: ClassVar[float] = 20.0
    """Seconds for the broker to do anything at all; joining a Kafka group takes some."""
    quiet: ClassVar[float] = 0.3
    """Seconds after which a poll without a delivery proves that none is waiting."""

    def consumer(self, prefetch: int = 10) -> Consumer:
        """Make a consumer that is not open, of ``topic`` and the test's own group."""
        raise NotImplementedError("ConsumerContract.consumer() must return a new consumer.")

    def publish(self, headers: Mapping[str, str], body: bytes) -> None:
        """Bring these very headers and bytes to ``topic``; called once the group has subscribed."""
        raise NotImplementedError("ConsumerContract.publish() must send headers and body.")

    def dead_letters(self, count: int) -> list[bytes]:
        """The bodies among the broker's dead letters of the group; wait for ``count`` at least."""
        raise NotImplementedError("ConsumerContract.dead_letters() must return the bodies.")

    def unreachable(self) -> Consumer | None:
        """Make a consumer whose broker is not there; None if that cannot be."""
        raise NotImplementedError(
            "ConsumerContract.unreachable() must return a consumer whose broker is not there, "
            "such as one for port 1 of 127.0.0.1, or None if it always is."
        )

    def cut(self) -> bool:
        """Break the connection as the network would; False if there is none to break."""
        return False

    def restore(self) -> None:
        """End what `cut` began, so that `open` succeeds again."""

    @contextlib.contextmanager
    def _opened(self, prefetch: int = 10) -> Iterator[Consumer]:
        with contextlib.closing(self.consumer(prefetch)) as consumer:
            consumer.open()
            yield consumer

    def _send(self, *bodies: bytes) -> list[Message]:
        messages = [
            Message(
                id=uuid.uuid4(),
                topic=self.topic,
                body=body,
                source="/contract",
                time=dt.datetime(2026, 11, 23, 12, 0, 0, 7, tzinfo=dt.UTC),
                key="42",
                headers={"traceparent": "00-ü"},
            )
            for body in bodies
        ]
        for message in messages:
            self.publish(to_headers(message, self.prefix), message.body)
        return messages

    def _take(self, consumer: Consumer, count: int, rule: str = DELIVERED) -> list[Delivery]:
        """At least so many deliveries."""
        deadline = time.monotonic() + self.patience
        found: list[Delivery] = []
        while len(found) < count:
            holds(time.monotonic() < deadline, rule, f"{bodies_of(found)}: not {count} deliveries")
            found += consumer.poll(0.2)
        return found

    def _take_one(self, consumer: Consumer, body: bytes, rule: str) -> Delivery:
        found = self._take(consumer, 1, rule)
        equal(bodies_of(found), [body], rule)
        return found[0]

    def _ack(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            consumer.settle(delivery, Disposition.ACK)

    def _nothing_comes(self, consumer: Consumer, rule: str) -> None:
        equal(bodies_of(consumer.poll(self.quiet)), [], rule)

    def _poll_on(self, consumer: Consumer) -> None:
        """Until it fails; at most for our patience."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            consumer.poll(0.2)

    def _reopened(self, consumer: Consumer) -> None:
        """Open it again; the broker may need a while to come back."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return consumer.open()
            except ConsumerUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _refuses(self, consumer: Consumer) -> None:
        raises(ConsumerUnavailable, LOST, lambda: consumer.poll(0))

    def _made_with(self, option: str) -> Consumer:
        made = self.consumer()
        return type(made)(
            made.alias,
            made.url,
            {**made.options, option: ["no value of this kind"]},
            group=made.group,
            topics=made.topics,
            prefetch=made.prefetch,
        )


def bodies_of(deliveries: Sequence[Delivery]) -> list[bytes]:
    """What came, for an error that says so."""
    return [delivery.body for delivery in deliveries]
