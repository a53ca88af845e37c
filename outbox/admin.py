"""Messages in Django's admin: where they stand, what happened, and another try for what failed."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, cast

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.utils.text import format_lazy, smart_split, unescape_string_literal
from django.utils.translation import gettext_lazy as _

from outbox import operations, wire
from outbox.conf import get_settings
from outbox.models import OutboxMessage, TodoState
from outbox.runtime import pages
from outbox.store.history import history_of
from outbox.store.retrying import RETRIED, Retried
from outbox.store.selection import RECENT, UNSENT, Selection, state_of, with_state
from outbox.store.types import PUBLISHED

INLINE: Final = 500
"""Messages that one request changes; more are for the command."""
_SAMPLES: Final = 5
_DIGITS: Final = 19
"""A number of as many digits may be more than a database holds."""
_FIELDS: Final = (
    "state", "id", "topic", "key", "broker", "source", "attempts", "created_at", "due",
    "error_class", "error", "timeline", "content_type", "size", "fingerprint",
)  # fmt: skip


class _Filter(admin.SimpleListFilter):
    """Its value is read in `MessageAdmin.get_search_results`, where all conditions meet."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Leave the rows as they are."""


class StateFilter(_Filter):
    """By the state, which is computed."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, *_args: Any) -> list[tuple[str, str]]:
        """The states."""
        return [(name, name) for name in (*UNSENT, PUBLISHED)]


class BrokerFilter(_Filter):
    """By broker: those of the settings, so that no table is searched for them."""

    title = _("broker")
    parameter_name = "broker"

    def lookups(self, *_args: Any) -> list[tuple[str, str]]:
        """The aliases."""
        return [(alias, alias) for alias in get_settings().brokers]


@admin.register(OutboxMessage)
class MessageAdmin(pages.ReadOnlyAdmin):
    """Read-only, but for the retry of what failed."""

    list_display = ("state", "topic", "key", "attempts", "age", "due", "broker", "short_id")
    list_display_links = ("state", "short_id")
    list_filter = (StateFilter, BrokerFilter)
    # Only the primary key has the order of a list; any other column would be sorted as a whole.
    ordering = ("-seq",)
    sortable_by = ()
    search_fields = ("id",)
    search_help_text = format_lazy(
        _("An id, or topic:orders.* key:42; of those, the newest {count} messages are searched."),
        count=f"{RECENT:,}",
    )
    actions = ("retry_now",)
    change_form_template = "outbox/admin/message.html"

    class Media:
        css: Final = {"all": ("outbox/admin.css",)}

    def get_queryset(self, *_args: Any) -> QuerySet[OutboxMessage]:
        """Rows with their state; bodies stay in the database until one is shown."""
        rows = OutboxMessage.objects.using(router.db_for_write(OutboxMessage))
        return with_state(rows).defer("body", "headers").order_by("-seq")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Rows by filters and search terms, without a walk through the table."""
        try:
            selection = _selection(request, search_term)
        except ValueError as error:
            self.message_user(request, str(error), messages.WARNING)
            return queryset.none(), False
        return selection.narrow(queryset, pages.COUNTED + 1), False

    @admin.display(description=_("state"))
    def state(self, row: OutboxMessage) -> SafeString:
        """Icon and text."""
        return pages.badge(state_of(row))

    @admin.display(description=_("attempts"))
    def attempts(self, row: Any) -> str:
        """Only of messages that failed."""
        if not row.todo_attempts:
            return ""
        return f"{row.todo_attempts}/{get_settings().max_attempts + row.todo_forgiven}"

    @admin.display(description=_("age"))
    def age(self, row: OutboxMessage) -> SafeString | str:
        """Since it was published by the application."""
        return pages.age(row.created_at)

    @admin.display(description=_("due"))
    def due(self, row: Any) -> SafeString | str:
        """The next attempt, where one is to come."""
        waits = row.todo_state in (TodoState.NEW, TodoState.RETRY)
        return pages.age(row.todo_due_at if waits else None)

    @admin.display(description=_("id"))
    def short_id(self, row: OutboxMessage) -> str:
        """Its random end; ids of one moment begin alike."""
        return str(row.id)[-8:]

    @admin.display(description=_("error class"))
    def error_class(self, row: Any) -> str:
        """Of the last failed attempt."""
        return row.todo_error_class or "-"

    @admin.display(description=_("error"))
    def error(self, row: Any) -> str:
        """Of the last failed attempt."""
        return row.todo_error or "-"

    @admin.display(description=_("timeline"))
    def timeline(self, row: OutboxMessage) -> SafeString:
        """What happened to it."""
        return pages.timeline(history_of(row, str(row._state.db)).events)  # noqa: SLF001

    @admin.display(description=_("size"))
    def size(self, row: OutboxMessage) -> str:
        """Of the body."""
        return f"{len(row.body):,} bytes"

    @admin.display(description=_("fingerprint"))
    def fingerprint(self, row: OutboxMessage) -> str:
        """Of the content."""
        try:
            return wire.fingerprint(row.to_message()).hex()
        except wire.DecodeError:
            return "-"

    @admin.display(description=_("headers"))
    def shown_headers(self, row: OutboxMessage) -> SafeString:
        """The publisher's own."""
        return pages.pretty(row.headers)

    @admin.display(description=_("payload"))
    def shown_payload(self, row: OutboxMessage) -> SafeString:
        """Decoded where it can be."""
        message = row.to_message()
        try:
            return pages.pretty(message.payload)
        except wire.DecodeError:
            return pages.pretty(message.body)

    def get_fields(self, request: HttpRequest, *_args: Any) -> tuple[str, ...]:
        """Payload and headers only for who may see them."""
        if self.may(request, "view_payload"):
            return (*_FIELDS, "shown_headers", "shown_payload")
        return _FIELDS

    def get_readonly_fields(self, request: HttpRequest, *_args: Any) -> tuple[str, ...]:
        """All of them."""
        return self.get_fields(request)

    def get_urls(self) -> list[URLPattern]:
        """And the page that asks before a retry."""
        view = self.admin_site.admin_view(self.retry_view)
        return [path("retry/", view, name=self._url_name("retry")), *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """With a button for who may retry what can be."""
        row = context["original"]
        if row.todo_state in RETRIED and self.has_retry_message_permission(request):
            context["retry_url"] = self._url("retry")
        return super().render_change_form(request, context, *args, **kwargs)

    def has_retry_message_permission(self, request: HttpRequest) -> bool:
        """Whether the user may retry messages."""
        return self.may(request, "retry_message")

    @admin.action(description=_("Retry now"), permissions=["retry_message"])
    def retry_now(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Ask whether the selected ones shall be retried."""
        positions = list(queryset.order_by("seq").values_list("seq", flat=True)[: INLINE + 1])
        return self._ask(request, positions)

    def retry_view(self, request: HttpRequest) -> HttpResponse:
        """Ask, and once confirmed, retry."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not (self.has_view_permission(request) and self.has_retry_message_permission(request)):
            raise PermissionDenied
        given = request.POST.getlist("seq")[: INLINE + 1]
        positions = sorted({int(seq) for seq in given if seq.isdecimal() and len(seq) < _DIGITS})
        if "confirmed" in request.POST and 0 < len(positions) <= INLINE:
            outcome = self._retry(request, positions)
            self.message_user(request, _told(outcome), messages.SUCCESS)
        elif answer := self._ask(request, positions):
            return answer
        return HttpResponseRedirect(self._url("changelist"))

    def _ask(self, request: HttpRequest, positions: Sequence[int]) -> HttpResponse | None:
        if len(positions) > INLINE:
            text = _("More than {count} messages: use the command outbox_retry for that many.")
            self.message_user(request, text.format(count=INLINE), messages.ERROR)
            return None
        rows = self.get_queryset(request).filter(seq__in=positions)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Retry now"),
            "opts": self.opts,
            "positions": positions,
            "count": len(positions),
            "samples": rows[:_SAMPLES],
            "more": max(0, len(positions) - _SAMPLES),
            "list_url": self._url("changelist"),
            "retry_url": self._url("retry"),
            "media": self.media,
        }
        # So that the template's links stay in this admin site, whatever its name.
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "outbox/admin/retry.html", context)

    def _retry(self, request: HttpRequest, positions: Sequence[int]) -> Retried:
        using = router.db_for_write(OutboxMessage)
        reason = request.POST.get("reason", "")
        with transaction.atomic(using=using), transaction.atomic(router.db_for_write(LogEntry)):
            actor = request.user.get_username()
            outcome = operations.retry(using, positions, actor=actor, reason=reason)
            rows = self.get_queryset(request).filter(id__in=outcome.changed)
            # The text that the admin's own history page shows.
            said = f"Retried. {reason}".strip()
            LogEntry.objects.log_actions(cast(int, request.user.pk), rows, CHANGE, said)
        return outcome

    def _url_name(self, page: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{page}"

    def _url(self, page: str) -> str:
        return reverse(f"{self.admin_site.name}:{self._url_name(page)}")


def _selection(request: HttpRequest, search_term: str) -> Selection:
    """What is looked for. Raises `ValueError` for what is no search term."""
    state, broker = request.GET.get("state"), request.GET.get("broker")
    ids, topics, key = [], [], None
    for term in smart_split(search_term):
        word, colon, text = term.partition(":")
        if text[:1] in ("'", '"') and text[:1] == text[-1:] and len(text) > 1:
            text = unescape_string_literal(text)
        if word == "topic" and text:
            topics.append(text)
        elif word == "key" and colon:
            key = text
        else:
            ids.append(_id(text if word == "id" else term))
    states = [state] if state in (*UNSENT, PUBLISHED) else []
    return Selection(ids=ids, states=states, topics=topics, key=key, broker=broker or "")


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise ValueError(
            _("“{}” is no id. Search by id, topic:… or key:….").format(text)
        ) from error


def _told(outcome: Retried) -> str:
    reasons = Counter(reason for _id, reason in outcome.skipped)
    skipped = "; ".join(f"{count} {reason}" for reason, count in reasons.items())
    return f"Retried {len(outcome.changed)}." + (f" Skipped: {skipped}." if skipped else "")
