"""The contract of `outbox.brokers.Publisher`, for every driver."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from unittest import SkipTest

from outbox.brokers.base import Confirm, Status
from outbox.exceptions import BrokerError, BrokerUnavailable
from outbox.runtime.proving import eagerness, equal, holds, in_child, raises
from outbox.testing.contracts.publisher_bench import (
    ADDRESSED,
    IN_ORDER,
    IN_TIME,
    LAZY,
    LOST,
    NOTHING_KEPT,
    ONE_ANSWER,
    ONE_OWNER,
    OPTIONS,
    PIPELINED,
    UNROUTABLE,
    PublisherBench,
)


class PublisherContract(PublisherBench):
    """The rules of `outbox.brokers.Publisher` as tests, to be run by pytest or unittest.

    Subclass it in a test file and fill in the hooks: ``publisher``, ``received`` and
    ``unreachable`` must be given, the others fit most drivers. The subclass sees to it that
    somebody receives ``topic`` and ``other_topic``, and that what one test sends the next one does
    not see. A test whose flag or hook says that the driver has no such thing is skipped.
    """

    def test_each_submission_gets_one_answer_and_arrives_as_it_was(self) -> None:
        messages = [self._message(n, headers={"trace": f"t{n}"}) for n in range(100)]
        messages.append(self._message(key="customer-ä"))
        messages.append(self._message(content_type="image/png", body=b"\x89PNG\x00"))
        messages.append(self._message(body=b""))
        messages.append(self._message(headers={"note": "grüße, 世界", "empty": ""}))
        with self._opened() as publisher:
            for message in messages:
                publisher.submit(message, {})
            answers = self._collect(publisher, len(messages))
            ids = sorted(answer.message_id for answer in answers)
            equal(ids, sorted(message.id for message in messages), ONE_ANSWER)
            equal({answer.status for answer in answers}, {Status.ACKED}, ONE_ANSWER)
            equal(publisher.confirms(0), [], ONE_ANSWER)
            self._arrived(messages)

    def test_what_was_acked_is_there_although_the_publisher_was_closed_at_once(self) -> None:
        messages = [self._message(number) for number in range(100)]
        with self._opened() as publisher:
            self._send(publisher, *messages)
        self._arrived(messages)

    def test_the_largest_body_that_publish_accepts_arrives(self) -> None:
        largest = self._message(body=b"x" * self.largest_body, headers={"note": "n" * 1000})
        with self._opened() as publisher:
            self._send(publisher, largest)
            self._arrived([largest])

    def test_a_message_may_be_sent_again_after_its_answer(self) -> None:
        message = self._message()
        with self._opened() as publisher:
            for _ in range(2):
                self._send(publisher, message)

    def test_a_window_is_answered_in_fewer_calls_than_messages(self) -> None:
        count = self.pipelined
        with self._opened() as publisher:
            holds(publisher.window >= count, PIPELINED, f"window is {publisher.window}")
            for number in range(count):
                publisher.submit(self._message(number), {})
            calls = answered = 0
            while answered < count:
                more = len(publisher.confirms(self.patience))
                holds(more, ONE_ANSWER, f"{answered} of {count} answers came")
                calls, answered = calls + 1, answered + more
            equal(answered, count, ONE_ANSWER)
            holds(calls <= count // 2, PIPELINED, f"{calls} calls for {count} answers")

    def test_as_many_bytes_as_it_says_may_be_in_flight(self) -> None:
        size = 64 * 1024
        with self._opened() as publisher:
            count = min(publisher.window_bytes // size, publisher.window)
            messages = [self._message(n, body=bytes([n % 256]) * size) for n in range(count)]
            for message in messages:
                publisher.submit(message, {})
            self._acked(self._collect(publisher, count), *messages)
            self._arrived(messages)

    def test_confirms_waits_as_long_as_it_was_told(self) -> None:
        with self._opened() as publisher:
            began = time.monotonic()
            equal(publisher.confirms(0), [], ONE_ANSWER)
            equal(publisher.confirms(0.1), [], ONE_ANSWER)
            took = time.monotonic() - began
            holds(took < 1, IN_TIME, f"confirms(0) and confirms(0.1) took {took:.1f} s")

    def test_open_again_keeps_what_is_in_flight(self) -> None:
        message = self._message()
        with self._opened() as publisher:
            publisher.submit(message, {})
            publisher.open()
            self._acked(self._collect(publisher, 1), message)

    def test_close_forgets_what_is_in_flight(self) -> None:
        again = self._message(1)
        with self._opened() as publisher:
            publisher.submit(self._message(), {})
            publisher.close()
            publisher.close()
            self._refuses(publisher)
            publisher.open()
            publisher.submit(again, {})
            equal(self._collect(publisher, 1), [Confirm(again.id, Status.ACKED)], NOTHING_KEPT)
            equal(publisher.confirms(0.2), [], NOTHING_KEPT)

    def test_nothing_works_before_open(self) -> None:
        publisher = self.publisher()
        self._refuses(publisher)
        publisher.close()

    def test_a_forked_child_is_refused_and_the_parent_unharmed(self) -> None:
        if not hasattr(os, "fork"):
            raise SkipTest("this system cannot fork")
        message = self._message()
        uses: dict[str, Callable[[], object]]
        with self._opened() as publisher:
            uses = {
                "open": publisher.open,
                "submit": lambda: publisher.submit(message, {}),
                "confirms": lambda: publisher.confirms(0),
            }
            for name, use in uses.items():
                said = in_child(use)
                refused = said.startswith("BrokerError: ") and "child" in said
                holds(refused, ONE_OWNER, f"{name}() in the child said {said!r}")
            equal(in_child(publisher.close), "None", ONE_OWNER)
            self._send(publisher, message)

    def test_another_thread_is_refused(self) -> None:
        with self._opened() as publisher:
            uses: list[Callable[[], object]] = [
                lambda: publisher.submit(self._message(), {}),
                lambda: publisher.confirms(0),
            ]
            for use in uses:
                error = _in_thread(use)
                refused = isinstance(error, BrokerError) and "another thread" in str(error)
                holds(refused, ONE_OWNER, error)
            self._send(publisher, self._message())

    def test_nothing_is_imported_or_opened_before_open(self) -> None:
        made = self.publisher()
        path = f"{type(made).__module__}.{type(made).__qualname__}"
        arguments = (made.alias, made.url, dict(made.options))
        settings: dict[str, object] = {
            "OUTBOX": {"SOURCE": "/", "BROKERS": {"default": {"BACKEND": path}}}
        }
        equal(eagerness(made, arguments, {}, self.client_modules, settings), [], LAZY)

    def test_an_unknown_option_is_refused_by_name(self) -> None:
        said = str(self._refused_with("no_such_option"))
        holds("no_such_option" in said, OPTIONS, said)

    def test_a_misspelt_option_is_answered_with_the_nearest(self) -> None:
        if not self.option or self.forwards_options:
            raise SkipTest("no option to misspell")
        said = str(self._refused_with(self.option[:-1]))
        holds(f"'{self.option}'" in said, OPTIONS, said)

    def test_a_broker_that_is_not_there_is_unavailable(self) -> None:
        publisher = self.unreachable()
        if publisher is None:
            raise SkipTest("the broker is always there")
        for _ in range(2):
            began = time.monotonic()
            raises(BrokerUnavailable, LOST, publisher.open)
            took = time.monotonic() - began
            holds(took < self.patience, LOST, f"open() took {took:.1f} s")
            self._refuses(publisher)
        publisher.close()

    def test_a_lost_connection_is_unavailable_until_it_is_opened_again(self) -> None:
        with self._opened() as publisher:
            self._send(publisher, self._message())
            if not self.cut():
                raise SkipTest("cut() has nothing to break")
            try:
                raises(BrokerUnavailable, LOST, lambda: self._use_on(publisher))
                self._refuses(publisher)
            finally:
                self.restore()
            publisher.open()
            again = self._message(1)
            self._send(publisher, again)
            self._arrived([again])

    def test_what_nobody_receives_is_returned_and_its_neighbours_acked(self) -> None:
        if not self.reports_unroutable:
            raise SkipTest("reports_unroutable is off")
        lost, fine = self._message(topic=self.nowhere), self._message()
        with self._opened() as publisher:
            publisher.submit(lost, {})
            publisher.submit(fine, {})
            answers = {a.message_id: a for a in self._collect(publisher, 2)}
        equal(answers[lost.id].status, Status.RETURNED, UNROUTABLE)
        holds(answers[lost.id].reason, UNROUTABLE, answers[lost.id])
        equal(answers[fine.id].status, Status.ACKED, UNROUTABLE)

    def test_the_address_counts_and_not_the_topic(self) -> None:
        here, there = self._message(1), self._message(2)
        with self._opened() as publisher:
            publisher.submit(there, self.address(self.other_topic))
            publisher.submit(here, {})
            self._acked(self._collect(publisher, 2), here, there)
            # The topic is part of the message and stays as it was published.
            equal(self.received(self.other_topic, 1), [there], ADDRESSED)
            equal(self.received(self.topic, 1), [here], ADDRESSED)

    def test_messages_of_one_key_arrive_in_the_order_of_their_confirms(self) -> None:
        if not self.keeps_key_order:
            raise SkipTest("keeps_key_order is off")
        messages = [self._message(number, key="customer") for number in range(20)]
        with self._opened() as publisher:
            for message in messages:
                self._send(publisher, message)
            got = self.received(self.topic, len(messages))
        equal([message.id for message in got], [message.id for message in messages], IN_ORDER)


def _in_thread(use: Callable[[], object]) -> Exception | None:
    caught: list[Exception] = []

    def run() -> None:
        try:
            use()
        except Exception as error:  # noqa: BLE001 - it is looked at outside of the thread
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return caught[0] if caught else None
