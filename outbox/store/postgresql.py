"""PostgreSQL: one statement to publish, one index range a slot to claim."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, cast

from django.db import connections

from outbox.store.base import Store, slot_of
from outbox.store.types import Lease
from outbox.wire import Message

# Message and todo row in one round trip, inside the caller's transaction (G1).
_ADD: Final = """
WITH stored AS (
    INSERT INTO outbox_message
        (id, "time", slot, broker, topic, source, key, datacontenttype, headers, data)
    VALUES {rows} RETURNING seq, broker, slot, key
)
INSERT INTO outbox_todo (seq, broker, slot, key) SELECT seq, broker, slot, key FROM stored
"""
_ROW: Final = "(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"

# The bound is PostgreSQL's 65,535 parameters a statement, ten of which go to a row.
_ROWS_A_STATEMENT: Final = 5000

# A page comes from one short index range a slot; a plain ORDER BY with "slot IN" would read and
# sort the whole backlog of the lane. The range is one of rows and not "slot = s.slot ORDER BY seq",
# for which the unique index on seq looks as good while the statistics are those of an empty table.
_NEW: Final = """
SELECT t.seq, t.key, t.attempts
FROM unnest(%s::smallint[]) AS s(slot) CROSS JOIN LATERAL (
    SELECT seq, key, attempts FROM outbox_todo
    WHERE state = 0
        AND (broker, slot, seq) >= (%s, s.slot, 0) AND (broker, slot, seq) < (%s, s.slot + 1, 0)
    ORDER BY broker, slot, seq LIMIT %s
) t ORDER BY t.seq LIMIT %s
"""

# One look-up a key, for the same reason; "key IN" would read every exception there is.
_BLOCKED: Final = """
SELECT k.key FROM unnest(%s::text[]) AS k(key) WHERE (
    SELECT 1 FROM outbox_todo t
    WHERE t.broker = %s AND t.key = k.key AND t.state > 0 LIMIT 1
) IS NOT NULL
"""


class PostgreSQLStore(Store):
    """Engine H with PostgreSQL's statements."""

    now = "statement_timestamp()"
    later = "statement_timestamp() + %s * interval '1 second'"
    oldest = (14,)

    def add(self, messages: Sequence[tuple[Message, str]]) -> None:
        """Write messages, each with its broker's alias, in the caller's transaction."""
        with connections[self.alias].cursor() as cursor:
            for start in range(0, len(messages), _ROWS_A_STATEMENT):
                part = messages[start : start + _ROWS_A_STATEMENT]
                rows = ", ".join([_ROW] * len(part))
                parameters = [value for message, broker in part for value in _row(message, broker)]
                cursor.execute(_ADD.format(rows=rows), parameters)

    def _new(self, held: Lease, limit: int) -> list[tuple[int, str, int]]:
        with connections[self.alias].cursor() as cursor:
            cursor.execute(_NEW, [list(held.slots), held.broker, held.broker, limit, limit])
            return cast(list[tuple[int, str, int]], cursor.fetchall())

    def _blocked(self, broker: str, keys: set[str]) -> set[str]:
        with connections[self.alias].cursor() as cursor:
            cursor.execute(_BLOCKED, [list(keys), broker])
            return {key for (key,) in cursor.fetchall()}


def _row(message: Message, broker: str) -> tuple[Any, ...]:
    return (
        message.id,
        message.time,
        slot_of(message),
        broker,
        message.topic,
        message.source,
        message.key,
        message.content_type,
        json.dumps(dict(message.headers)),
        message.body,
    )
