"""What the admin pages of both apps share. Imported only where django.contrib.admin is installed.

Everything shown is escaped; no inline style or script, so a strict content security policy holds.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from django.contrib import admin
from django.core.paginator import Paginator
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from outbox.runtime.timeline import Event

if TYPE_CHECKING:
    from django.db.models import QuerySet

    _ModelAdmin = admin.ModelAdmin[Any]
    _Paginator = Paginator[Any]
else:
    _ModelAdmin = admin.ModelAdmin
    _Paginator = Paginator

COUNTED: Final = 10_000
"""Rows that a list counts and shows; of more it says that there are more than these."""
PREVIEW: Final = 100_000
"""Characters of a payload that a page shows."""

_ICONS: Final = {
    "pending": "\N{WHITE CIRCLE}",
    "scheduled": "\N{CLOCKWISE OPEN CIRCLE ARROW}",
    "retrying": "\N{ANTICLOCKWISE OPEN CIRCLE ARROW}",
    "parked": "\N{DOUBLE VERTICAL BAR}",
    "published": "\N{CHECK MARK}",
    "dead": "\N{MULTIPLICATION X}",
    "received": "\N{WHITE CIRCLE}",
    "processed": "\N{CHECK MARK}",
    "quarantined": "\N{WARNING SIGN}",
    "discarded": "\N{EM DASH}",
}


class CappedPaginator(_Paginator):
    """Counts at most one row more than `COUNTED`, whatever the size of the table."""

    @cached_property
    def count(self) -> int:
        """Rows, or `COUNTED` + 1 when there are more."""
        rows = cast("QuerySet[Any]", self.object_list)
        # No order and no annotations: the database must not work out what it only has to count.
        return int(rows.order_by().values("pk")[: COUNTED + 1].count())


class ReadOnlyAdmin(_ModelAdmin):
    """A list and its details: nothing is added, edited or deleted, and nothing large is counted."""

    paginator = CappedPaginator
    show_full_result_count = False
    list_per_page = 50
    # "Show all" would, and so would counts beside the filters.
    list_max_show_all = 0
    show_facets = admin.ShowFacets.NEVER

    def has_add_permission(self, *_args: Any, **_kwargs: Any) -> bool:
        """Never: rows come from `publish()` and from brokers."""
        return False

    def has_change_permission(self, *_args: Any, **_kwargs: Any) -> bool:
        """Never: what was sent stays what it was."""
        return False

    def has_delete_permission(self, *_args: Any, **_kwargs: Any) -> bool:
        """Never: rows leave by retention."""
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:  # noqa: ARG002 - as Django's
        """By the filters alone: any other lookup could guess what ``view_payload`` hides."""
        return lookup in {getattr(each, "parameter_name", each) for each in self.list_filter}

    def may(self, request: HttpRequest, permission: str) -> bool:
        """Whether the user has one of the app's own permissions, such as ``view_payload``."""
        return request.user.has_perm(f"{self.opts.app_label}.{permission}")


def badge(state: str) -> SafeString:
    """A state as icon and text, so that colour never carries it alone."""
    return format_html(
        '<span class="ob-badge ob-{}"><span aria-hidden="true">{}</span> {}</span>',
        state,
        _ICONS.get(state, "\N{BULLET}"),
        state,
    )


def moment(at: dt.datetime | None) -> SafeString | str:
    """A time in UTC; ``-`` for none."""
    if at is None:
        return "-"
    utc = _utc(at)
    return format_html(
        '<time datetime="{}">{} UTC</time>', utc.isoformat(), f"{utc:%Y-%m-%d %H:%M:%S}"
    )


def age(at: dt.datetime | None) -> SafeString | str:
    """How long ago, or how long from now, in its largest unit; ``-`` for none."""
    if at is None:
        return "-"
    utc = _utc(at)
    seconds = (dt.datetime.now(dt.UTC) - utc).total_seconds()
    return format_html(
        '<time datetime="{}" title="{} UTC">{}{}</time>',
        utc.isoformat(),
        f"{utc:%Y-%m-%d %H:%M:%S}",
        "in " if seconds < 0 else "",
        _span(abs(seconds)),
    )


def _utc(at: dt.datetime) -> dt.datetime:
    # Without USE_TZ Django hands out local times without a zone.
    aware = at if timezone.is_aware(at) else timezone.make_aware(at)
    return aware.astimezone(dt.UTC)


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f}\N{NO-BREAK SPACE}{unit}"
    return f"{seconds:.0f}\N{NO-BREAK SPACE}s"


def timeline(events: Iterable[Event]) -> SafeString:
    """What happened, as an ordered list."""
    items = format_html_join(
        "",
        "<li>{} <strong>{}</strong> {}</li>",
        ((moment(event.at), event.name, event.detail) for event in events),
    )
    return format_html('<ol class="ob-timeline">{}</ol>', items)


def pretty(value: object) -> SafeString:
    """A payload or headers, as JSON with indents; bytes as they are written in Python."""
    if isinstance(value, bytes):
        text = repr(value[:PREVIEW])
    else:
        try:
            text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
        except RecursionError:
            text = "nests too deeply to be shown"
    # JSON may escape half of a surrogate pair, which no page can hold.
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) > PREVIEW:
        text = f"{text[:PREVIEW]}\n… cut: {len(text):,} characters"
    return format_html('<pre class="ob-payload">{}</pre>', text)
