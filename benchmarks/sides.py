"""The sides that the cases of the relay put against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from django.db import connection

from benchmarks.harness import Timing, check, timed
from benchmarks.messages import check_drained, fill
from outbox.brokers import Publisher
from outbox.models import OutboxMessage, OutboxTodo
from outbox.relay import Relay
from outbox.wire import Message

Expect = Callable[[int], None]
"""Raises `Wrong` unless so many messages have come to the broker."""

PAGE: Final = 500
_PATIENCE: Final = 10.0


def drained(relay: Relay, topic: str, count: int, expect: Expect) -> Timing:
    """The relay's side: a backlog, drained by the product's own code."""
    fill(topic, count)
    reports = []
    timing = timed(count, lambda: reports.append(relay.drain()))
    check("outage", reports[0].outage, "")
    check("published", reports[0].published, count)
    check_drained(count)
    expect(count)
    return timing


def one_at_a_time(
    send: Callable[[Message], None], topic: str, count: int, expect: Expect
) -> Timing:
    """A relay over the same rows that waits for the confirm of each message, and marks each."""
    fill(topic, count)
    timing = timed(count, lambda: _drain_one_at_a_time(send))
    check_drained(count)
    expect(count)
    return timing


def _drain_one_at_a_time(send: Callable[[Message], None]) -> None:
    while page := list(OutboxTodo.objects.order_by("seq").values_list("seq", flat=True)[:PAGE]):
        rows = OutboxMessage.objects.in_bulk(page)
        with connection.cursor() as cursor:
            for seq in page:
                send(rows[seq].to_message())
                cursor.execute("DELETE FROM outbox_todo WHERE seq = %s", [seq])


def published(publisher: Publisher, messages: Sequence[Message], expect: Expect) -> Timing:
    """The client's side: the product's publisher without a database, its window kept full."""
    timing = timed(len(messages), lambda: _publish_all(publisher, messages))
    expect(len(messages))
    return timing


def _publish_all(publisher: Publisher, messages: Sequence[Message]) -> None:
    open_ = 0
    for message in messages:
        # Half of it at a time: a client that waits for each single answer reads each by itself.
        if open_ >= publisher.window:
            while open_ > publisher.window // 2:
                open_ -= _collect(publisher)
        publisher.submit(message, {})
        open_ += 1
    while open_:
        open_ -= _collect(publisher)


def _collect(publisher: Publisher) -> int:
    answers = publisher.confirms(_PATIENCE)
    check("answers of the broker", {answer.status.value for answer in answers}, {"acked"})
    return len(answers)
