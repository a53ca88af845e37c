"""See what a piece of code published."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.db import router

from outbox.models import OutboxMessage
from outbox.wire import Message


class CapturedMessages:
    """The messages that were published since the block began and not rolled back."""

    def __init__(self, using: str) -> None:
        """Start now, on this database alias."""
        self._rows = OutboxMessage.objects.using(using).order_by("seq")
        newest = self._rows.last()
        self._after = newest.seq if newest else 0

    def all(self) -> list[Message]:
        """All of them, in the order of their publication."""
        return [row.to_message() for row in self._rows.filter(seq__gt=self._after)]

    def of(self, topic: str) -> list[Message]:
        """Those of one topic."""
        return [message for message in self.all() if message.topic == topic]

    def one(self, topic: str) -> Message:
        """The only one of this topic. Raises `AssertionError` that lists what was published."""
        found = self.of(topic)
        if len(found) != 1:
            message = f"Expected one {topic!r} message, found {len(found)}.\n{self._listing()}"
            raise AssertionError(message)
        return found[0]

    def none(self) -> None:
        """Assert that nothing was published. Raises `AssertionError` that lists what was."""
        if self.all():
            message = f"Expected no message.\n{self._listing()}"
            raise AssertionError(message)

    def _listing(self) -> str:
        lines = [f"  {m.topic} key={m.key!r} {m.body[:200]!r}" for m in self.all()]
        return "Published:\n" + ("\n".join(lines) or "  nothing")


@contextlib.contextmanager
def captured_messages(using: str | None = None) -> Iterator[CapturedMessages]:
    """Collect what the block publishes; works in `TestCase`, where nothing commits.

    The messages can be read inside the block and after it. ``using`` is the database alias, by
    default the one that the routers name for writing.
    """
    yield CapturedMessages(using or router.db_for_write(OutboxMessage))
