"""The contract of `inbox.brokers.base.Consumer`, for every driver."""

from __future__ import annotations

import os
import threading
import time
from unittest import SkipTest

from inbox.delivery import Disposition
from inbox.exceptions import ConsumerUnavailable, InvalidBroker
from inbox.testing.consumer_bench import (
    AWAKE,
    BOUNDED,
    CAUSE,
    DEAD_LETTERS,
    DELIVERED,
    LAZY,
    LOST,
    ONE_OWNER,
    OPENED,
    OPTIONS,
    REDELIVERED,
    RETRIED,
    SETTLED,
    STALE,
    UNJUDGED,
    ConsumerBench,
    bodies_of,
)
from outbox.runtime.proving import eagerness, equal, holds, in_child, lasts, raises
from outbox.wire import DecodeError

_SECONDS = 10.0
"""What "within seconds" means for a broker that is not there."""

_NO_MESSAGES: tuple[tuple[dict[str, str], bytes], ...] = (
    ({}, b""),
    ({}, b"\xff\0"),
    ({"ce-id": "no uuid"}, b"{}"),
    ({"content-type": "x"}, b"1"),
)


class ConsumerContract(ConsumerBench):
    """The rules of `inbox.brokers.base.Consumer` as tests, to be run by pytest or unittest.

    Subclass it in a test file and fill in the hooks: ``consumer``, ``publish``, ``dead_letters``
    and ``unreachable`` must be given. The subclass sees to it that each test has a topic and a
    group of its own. A test whose flag or hook says that the driver has no such thing is skipped.
    """

    def test_a_message_arrives_as_it_was_sent(self) -> None:
        with self._opened() as consumer:
            (message,) = self._send(b'{"order":1}')
            delivery = self._take_one(consumer, message.body, DELIVERED)
            lasts(DELIVERED, lambda: delivery.message)
            equal(delivery.message, message, DELIVERED)
            equal(delivery.group, consumer.group, DELIVERED)
            self._ack(consumer, [delivery])

    def test_a_hundred_messages_arrive_once_while_each_is_acked(self) -> None:
        bodies = [b"%d" % number for number in range(100)]
        found: list[bytes] = []
        with self._opened() as consumer:
            self._send(*bodies)
            while len(found) < len(bodies):
                for delivery in self._take(consumer, 1):
                    found.append(delivery.body)
                    self._ack(consumer, [delivery])
            self._nothing_comes(consumer, SETTLED)
        equal(sorted(found, key=int), bodies, DELIVERED)

    def test_acked_is_gone_and_open_comes_again_flagged(self) -> None:
        with self._opened() as consumer:
            self._send(b"1", b"2")
            self._ack(consumer, self._take(consumer, 2)[:1])
        with self._opened() as consumer:
            again = self._take_one(consumer, b"2", SETTLED)
            holds(again.redelivered, REDELIVERED, again)
            self._ack(consumer, [again])
            self._nothing_comes(consumer, SETTLED)

    def test_the_same_consumer_opened_again_gets_what_was_open(self) -> None:
        with self._opened() as consumer:
            self._send(b"1")
            self._take(consumer, 1)
            consumer.close()
            self._reopened(consumer)
            again = self._take_one(consumer, b"1", SETTLED)
            holds(again.redelivered, REDELIVERED, again)
            self._ack(consumer, [again])

    def test_an_ack_behind_an_open_delivery_does_not_ack_that_one(self) -> None:
        with self._opened() as consumer:
            self._send(b"1", b"2")
            first, second = self._take(consumer, 2)
            self._ack(consumer, [second])
        with self._opened() as consumer:
            holds(b"1" in bodies_of(self._take(consumer, 1, SETTLED)), SETTLED)
        # A settled delivery of the connection before is nobody's business any more.
        with self._opened() as consumer:
            self._ack(consumer, [first])
            holds(b"1" in bodies_of(self._take(consumer, 1, STALE)), STALE)

    def test_retry_comes_again_flagged(self) -> None:
        with self._opened() as consumer:
            self._send(b"1", b"2")
            first = self._take(consumer, 1)[0]
            consumer.settle(first, Disposition.RETRY)
            came = self._take(consumer, 2, RETRIED)
            equal(sorted(bodies_of(came)), [b"1", b"2"], RETRIED)
            again = next(delivery for delivery in came if delivery.body == b"1")
            holds(again.redelivered, REDELIVERED, again)
            if self.retries_first:
                equal(bodies_of(came), [b"1", b"2"], RETRIED)
            self._ack(consumer, came)
            self._nothing_comes(consumer, SETTLED)
        with self._opened() as consumer:
            self._nothing_comes(consumer, SETTLED)

    def test_retry_comes_again_as_often_as_it_is_said(self) -> None:
        with self._opened() as consumer:
            self._send(b"1")
            for _ in range(5):
                again = self._take_one(consumer, b"1", RETRIED)
                consumer.settle(again, Disposition.RETRY)
            self._ack(consumer, [self._take_one(consumer, b"1", RETRIED)])

    def test_dead_goes_to_the_brokers_dead_letters(self) -> None:
        with self._opened() as consumer:
            self._send(b"1", b"2")
            consumer.settle(self._take_one(consumer, b"1", DELIVERED), Disposition.DEAD)
            self._ack(consumer, [self._take_one(consumer, b"2", DEAD_LETTERS)])
            equal(self.dead_letters(1), [b"1"], DEAD_LETTERS)
        with self._opened() as consumer:
            self._nothing_comes(consumer, DEAD_LETTERS)

    def test_no_more_than_prefetch_are_open(self) -> None:
        with self._opened(prefetch=2) as consumer:
            self._send(b"1", b"2", b"3")
            came = self._take(consumer, 2)
            equal(len(came), 2, BOUNDED)
            self._nothing_comes(consumer, BOUNDED)
            self._ack(consumer, came[:1])
            self._take_one(consumer, b"3", BOUNDED)

    def test_a_waiting_poll_wakes_up_for_a_message(self) -> None:
        with self._opened() as consumer:
            self._send(b"1")
            self._ack(consumer, self._take(consumer, 1))
            sender = threading.Timer(0.5, self._send, [b"2"])
            sender.start()
            began = time.monotonic()
            # An interrupted wait may end early and empty-handed; a long one may not.
            came = consumer.poll(self.patience) or self._take(consumer, 1)
            took = time.monotonic() - began
            sender.join()
            equal(bodies_of(came), [b"2"], DELIVERED)
            holds(took < self.patience / 2, AWAKE, f"poll({self.patience}) took {took:.1f} s")

    def test_poll_waits_as_long_as_it_was_told(self) -> None:
        with self._opened() as consumer:
            self._send(b"1")
            self._ack(consumer, self._take(consumer, 1))
            began = time.monotonic()
            for timeout in (0, 0.1):
                equal(bodies_of(consumer.poll(timeout)), [], DELIVERED)
            took = time.monotonic() - began
            holds(took < self.patience / 4, AWAKE, f"poll(0) and poll(0.1) took {took:.1f} s")

    def test_bytes_that_are_no_message_are_delivered(self) -> None:
        with self._opened() as consumer:
            for headers, body in _NO_MESSAGES:
                self.publish(headers, body)
                delivery = self._take_one(consumer, body, UNJUDGED)
                holds(headers.items() <= delivery.headers.items(), UNJUDGED, delivery.headers)
                raises(DecodeError, UNJUDGED, lambda found=delivery: found.message)  # type: ignore[misc]
                self._ack(consumer, [delivery])

    def test_open_and_close_twice(self) -> None:
        consumer = self.consumer()
        for call in (consumer.open, consumer.open, consumer.close, consumer.close):
            lasts(OPENED, call)

    def test_a_broker_that_is_not_there_is_unavailable(self) -> None:
        consumer = self.unreachable()
        if consumer is None:
            raise SkipTest("the broker is always there")
        self._refuses(consumer)
        for _ in range(2):
            began = time.monotonic()
            error = raises(ConsumerUnavailable, LOST, consumer.open)
            took = time.monotonic() - began
            holds(took < _SECONDS, LOST, f"open() took {took:.1f} s")
            holds(error.__cause__, CAUSE, f"{error!r} has no cause")
            self._refuses(consumer)
        consumer.close()

    def test_a_lost_connection_is_unavailable_until_it_is_opened_again(self) -> None:
        with self._opened() as consumer:
            self._send(b"1")
            (delivery,) = self._take(consumer, 1)
            if not self.cut():
                raise SkipTest("cut() has nothing to break")
            try:
                raises(ConsumerUnavailable, LOST, lambda: self._poll_on(consumer))
                self._refuses(consumer)
            finally:
                self.restore()
            self._reopened(consumer)
            again = self._take_one(consumer, b"1", SETTLED)
            holds(again.redelivered, REDELIVERED, again)
            self._ack(consumer, [delivery, again])

    def test_a_forked_child_is_refused_and_the_parent_unharmed(self) -> None:
        if not hasattr(os, "fork"):
            raise SkipTest("this system cannot fork")
        with self._opened() as consumer:
            said = in_child(lambda: (consumer.close(), consumer.poll(0)))  # type: ignore[func-returns-value]
            refused = said.startswith("ConsumerUnavailable: ") and "child" in said
            holds(refused, ONE_OWNER, f"close() and poll() in the child said {said!r}")
            self._send(b"1")
            self._ack(consumer, [self._take_one(consumer, b"1", ONE_OWNER)])

    def test_nothing_is_imported_or_opened_before_open(self) -> None:
        made = self.consumer()
        arguments = (made.alias, made.url, dict(made.options))
        of = {"group": made.group, "topics": list(made.topics), "prefetch": made.prefetch}
        equal(eagerness(made, arguments, of, self.client_modules, {}), [], LAZY)

    def test_an_unknown_option_is_refused_by_name(self) -> None:
        if self.forwards_options:
            made = self._made_with("no_such_option")
            said = str(raises(InvalidBroker, OPTIONS, made.open))
        else:
            said = str(raises(InvalidBroker, OPTIONS, lambda: self._made_with("no_such_option")))
        holds("no_such_option" in said and "OPTIONS" in said, OPTIONS, said)

    def test_an_option_of_another_kind_is_refused_and_a_misspelt_one_with_the_nearest(self) -> None:
        if not self.option:
            raise SkipTest("no option to misspell")
        said = str(raises(InvalidBroker, OPTIONS, lambda: self._made_with(self.option)))
        holds(self.option in said and "OPTIONS" in said, OPTIONS, said)
        if not self.forwards_options:
            said = str(raises(InvalidBroker, OPTIONS, lambda: self._made_with(self.option[:-1])))
            holds(f"'{self.option}'" in said, OPTIONS, said)
