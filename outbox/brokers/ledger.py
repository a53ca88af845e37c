"""Which delivery tag is which message, and what the broker said of it: publisher confirms."""

from __future__ import annotations

import uuid
from typing import Any, Final

from outbox.brokers.base import Confirm, Status
from outbox.exceptions import BrokerUnavailable

_NACK: Final = (
    "basic.nack: a queue refused it, or the broker failed. A queue refuses when it is full "
    "(x-max-length, x-max-length-bytes or a policy, with x-overflow reject-publish): drain it or "
    "raise its limit, else see the broker's log."
)


class Ledger:
    """Delivery tag → message id of one channel in confirm mode, and the answers so far.

    ACKED is said only of a tag that the broker acked and did not return before. An answer that
    fits no open submission raises `BrokerUnavailable`: then nothing on this channel is certain.
    """

    def __init__(self) -> None:
        """Tags count from 1 on each channel."""
        self._last_tag = 0
        self._open: dict[int, uuid.UUID] = {}
        self._tags: dict[uuid.UUID, int] = {}
        self._returned: dict[int, str] = {}
        self._answers: list[Confirm] = []

    def __contains__(self, message_id: uuid.UUID) -> bool:
        return message_id in self._tags

    def add(self, message_id: uuid.UUID) -> None:
        """Note the next publish."""
        self._last_tag += 1
        self._open[self._last_tag] = message_id
        self._tags[message_id] = self._last_tag

    def answer(self, confirm: Confirm) -> None:
        """Note an answer that needs no broker."""
        self._answers.append(confirm)

    def take(self) -> list[Confirm]:
        """The answers since the last call."""
        answers, self._answers = self._answers, []
        return answers

    def ack(self, tag: int, multiple: bool) -> None:
        """Take a ``basic.ack``."""
        for each in self._cover(tag, multiple):
            self._settle(each, Status.ACKED, "")

    def nack(self, tag: int, multiple: bool) -> None:
        """Take a ``basic.nack``, which carries no reason."""
        for each in self._cover(tag, multiple):
            self._settle(each, Status.NACKED, _NACK)

    def returned(self, error: Any, exchange: str, routing_key: str, content: Any) -> None:
        """Take a ``basic.return``: it has no tag and comes before its ack (R2)."""
        text = str(content.properties.get("message_id"))
        try:
            tag = self._tags[uuid.UUID(text)]
        except (ValueError, KeyError) as unknown:
            raise BrokerUnavailable(
                f"The broker returned a message that is not in flight: {text[:100]!r}."
            ) from unknown
        self._returned[tag] = (
            f"{error.reply_code} {error.reply_text}: no queue is bound for routing key "
            f"{routing_key!r} at exchange {exchange!r}. Start its consumer, or bind the queue "
            "again (inbox_topology --declare)."
        )

    def _cover(self, tag: int, multiple: bool) -> list[int]:
        if tag not in self._open:
            raise BrokerUnavailable(
                f"The broker answered for delivery tag {tag}, which is not in flight."
            )
        return [each for each in self._open if each <= tag] if multiple else [tag]

    def _settle(self, tag: int, status: Status, reason: str) -> None:
        message_id = self._open.pop(tag)
        del self._tags[message_id]
        if tag in self._returned:
            status, reason = Status.RETURNED, self._returned.pop(tag)
        self._answers.append(Confirm(message_id, status, reason))
