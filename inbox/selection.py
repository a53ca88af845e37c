"""Which messages and quarantined deliveries a person means: of the commands and of the admin."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.conf import settings as django_settings
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Length, Now
from django.utils import timezone

from inbox import databases
from inbox.models import InboxMessage, InboxQuarantine, State
from outbox.runtime.patterns import any_of

QUARANTINED: Final = "quarantined"
STATES: Final = (*(state.name.lower() for state in State), QUARANTINED)
"""The words for a state, in the order of a message's life."""

Row = InboxMessage | InboxQuarantine

ORDERS: Final[dict[str, tuple[Any, ...]]] = {
    # By number and not by time: they are given out in the order of arrival, and have an index.
    "-received": ("-id",),
    "received": ("id",),
    "due": (F("next_attempt_at").asc(nulls_last=True), "id"),
    "-attempts": ("-attempts", "-id"),
}


@dataclass(frozen=True, slots=True)
class Selection:
    """What must hold for a row, all of it; an empty selection means every row.

    ``topics`` are `fnmatch` patterns. ``since`` (inclusive) and ``until`` (exclusive) bound the
    arrival; a duration counts back from now. A quarantined delivery has neither key nor error.
    """

    ids: tuple[uuid.UUID, ...] | None = None
    states: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    key: str | None = None
    groups: tuple[str, ...] = ()
    error: str | None = None
    since: dt.datetime | timedelta | None = None
    until: dt.datetime | timedelta | None = None

    def messages(self, rows: QuerySet[InboxMessage]) -> QuerySet[InboxMessage]:
        """Those of these messages that are meant."""
        where = self._where("received_at")
        if self.states:
            named = [State[name.upper()] for name in self.states if name != QUARANTINED]
            where &= Q(state__in=named)
        if self.ids is not None and not self.groups:
            # The unique index is by group first.
            where &= Q(group_name__in=databases.groups(rows.db))
        if self.key is not None:
            where &= Q(key=self.key)
        if self.error is not None:
            where &= Q(error_class=self.error)
        return rows.filter(where)

    def quarantined(self, rows: QuerySet[InboxQuarantine]) -> QuerySet[InboxQuarantine]:
        """Those of these deliveries that are meant."""
        other_state = self.states and QUARANTINED not in self.states
        if other_state or self.key is not None or self.error is not None:
            return rows.none()
        return rows.filter(self._where("arrived_at"))

    def _where(self, at: str) -> Q:
        where = Q()
        if self.ids is not None:
            where &= Q(message_id__in=self.ids)
        if self.groups:
            where &= Q(group_name__in=self.groups)
        if self.topics:
            where &= Q(topic__regex=any_of(self.topics))
        if self.since is not None:
            where &= Q(**{f"{at}__gte": _point(self.since)})
        if self.until is not None:
            where &= Q(**{f"{at}__lt": _point(self.until)})
        return where


def parse(text: str) -> Selection | None:
    """What a person has typed: ``id:`` ``topic:`` ``key:`` ``error:`` and bare ids.

    Several topics or ids mean any of them. None for what cannot be understood.
    """
    ids: list[uuid.UUID] = []
    topics: list[str] = []
    exact: dict[str, str] = {}
    for word in text.split():
        name, colon, value = word.partition(":")
        if name == "topic":
            topics.append(value)
        elif colon and name in ("key", "error"):
            exact[name] = value
        else:
            try:
                ids.append(uuid.UUID(value if name == "id" else word))
            except ValueError:
                return None
    return Selection(
        ids=tuple(ids) or None,
        topics=tuple(topics),
        key=exact.get("key"),
        error=exact.get("error"),
    )


def listed(selection: Selection, aliases: Iterable[str], order: str, limit: int) -> list[Row]:
    """The first ``limit`` rows of the selection over these databases, in one of `ORDERS`.

    Messages carry ``size``, the length of their body or None when it is not kept, and no body.
    """
    found: list[Row] = []
    sign = "" if order == "received" else "-"
    for alias in aliases:
        messages = selection.messages(InboxMessage.objects.using(alias))
        messages = messages.annotate(size=Length("body")).defer("body")
        kept = selection.quarantined(InboxQuarantine.objects.using(alias)).defer("body")
        if selection.ids is None:
            messages, kept = messages.order_by(*ORDERS[order]), kept.order_by(f"{sign}id")
        else:
            # By number, PostgreSQL may read all numbers for a few ids.
            orders = {"received": ("received_at", "id"), "-received": ("-received_at", "-id")}
            messages = messages.order_by(*orders.get(order, ORDERS[order]))
            kept = kept.order_by(f"{sign}arrived_at", f"{sign}id")
        found += [*messages[:limit], *kept[:limit]]
    # Stable: of one time or number the databases' own order stays.
    found.sort(key=lambda row: _place(row, order), reverse=order.startswith("-"))
    return found[:limit]


def _place(row: Row, order: str) -> tuple[bool, Any]:
    if order == "due":
        due = row.next_attempt_at if isinstance(row, InboxMessage) else None
        return due is None, due
    if order == "-attempts":
        return True, row.attempts if isinstance(row, InboxMessage) else 0
    return True, row.received_at if isinstance(row, InboxMessage) else row.arrived_at


def _point(moment: dt.datetime | timedelta) -> Any:
    if isinstance(moment, timedelta):
        return Now() - moment
    if django_settings.USE_TZ:
        return moment
    return timezone.make_naive(moment, timezone.get_default_timezone())
