"""Messages: a list, one with its timeline, and "Retry now"."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from inbox import documents, store, timeline
from inbox.admin.base import DATABASE, Database, Group, InboxAdmin, text
from inbox.models import InboxMessage, State
from inbox.selection import Selection
from outbox.runtime import pages

_SAMPLES: Final = 5


class ByState(admin.SimpleListFilter):
    """All but the processed ones are few and have an index."""

    title, parameter_name = _("state"), "state"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Any:
        """In the order of a message's life."""
        return [(state.name.lower(), state.label) for state in State]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[InboxMessage]
    ) -> QuerySet[InboxMessage]:
        """The state that was chosen."""
        value = (self.value() or "").upper()
        return queryset.filter(state=State[value]) if value in State.__members__ else queryset


@admin.register(InboxMessage)
class InboxMessageAdmin(InboxAdmin):
    """What the groups have taken in."""

    list_display = (
        *("badge", "age", "group", "topic", "key", "attempts", "duplicates"),
        *("error_class", "identity"),
    )
    list_filter = (ByState, Group, Database)
    arrival = "received_at"
    search_help_text = _("id: topic:orders.* key: error: or a bare id")
    actions = ("retry_now",)
    fieldsets: ClassVar[Any] = [
        (None, {"fields": ["badge", "identity", "group", "topic", "key", "source", "time"]}),
        (_("Run"), {"fields": ["attempts", "next_attempt_at", "error_class", "error_text"]}),
        (
            _("Arrival"),
            {"fields": ["received_at", "processed_at", "duplicates", "fingerprint_hex"]},
        ),
    ]
    _private: ClassVar[Any] = (
        _("Content"),
        {"fields": ["content_type", "headers_text", "payload_text"]},
    )

    @admin.display(description=_("state"))
    def badge(self, row: InboxMessage) -> SafeString:
        """Text and icon: colour alone says nothing to many."""
        return pages.badge(State(row.state).name.lower())

    @admin.display(description=_("age"))
    def age(self, row: InboxMessage) -> SafeString | str:
        """Since it was received."""
        return pages.age(row.received_at)

    @admin.display(description=_("error"))
    def error_text(self, row: InboxMessage) -> SafeString | None:
        """With its line breaks."""
        return text(row.error) if row.error else None

    @admin.display(description=_("fingerprint"))
    def fingerprint_hex(self, row: InboxMessage) -> str:
        """Of its content."""
        return bytes(row.fingerprint).hex()

    @admin.display(description=_("headers"))
    def headers_text(self, row: InboxMessage) -> SafeString:
        """As they came."""
        return pages.pretty(row.headers)

    @admin.display(description=_("payload"))
    def payload_text(self, row: InboxMessage) -> SafeString | str:
        """Gone once the message is processed."""
        if row.body is None:
            return str(_("not kept"))
        body = bytes(row.body)
        return pages.pretty(body if len(body) > pages.PREVIEW else documents.payload(row))

    def selected(
        self, rows: QuerySet[InboxMessage], selection: Selection
    ) -> QuerySet[InboxMessage]:
        """The messages that the selection means."""
        return selection.messages(rows)

    def get_fieldsets(self, request: HttpRequest, obj: InboxMessage | None = None) -> Any:
        """Content for those who may see it."""
        return [*self.fieldsets, *([self._private] if self.may(request, "view_payload") else [])]

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Of the action; asked for by Django."""
        return self.may(request, "retry_message")

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the timeline too, and what the other groups did."""
        row = self.get_object(request, object_id)
        if row is None or not self.has_view_permission(request, row):
            return super().change_view(request, object_id, form_url, extra_context)
        histories = timeline.history(row.message_id, row._state.db)  # noqa: SLF001 - documented API
        own = [entry for entry in histories if entry.group == row.group_name]
        context = {
            "timeline": pages.timeline(step for entry in own for step in entry.events),
            "others": [entry for entry in histories if entry.group != row.group_name],
            "may_retry": row.state in (State.PARKED, State.DEAD)
            and self.has_retry_permission(request),
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
            "database": request.GET.get(DATABASE),
        }
        return super().change_view(
            request, object_id, form_url, {**context, **(extra_context or {})}
        )

    @admin.action(description=_("Retry now"), permissions=["retry"])
    def retry_now(
        self, request: HttpRequest, queryset: QuerySet[InboxMessage]
    ) -> HttpResponse | None:
        """Ask first; then make them due, and record who did it and why."""
        pks = list(queryset.order_by("pk").values_list("pk", flat=True)[: store.BATCH + 1])
        if len(pks) > store.BATCH:
            refusal = _("Select at most %d messages.") % store.BATCH
            self.message_user(request, refusal, messages.ERROR)
            return None
        rows = self.get_queryset(request).filter(pk__in=pks)
        if "confirmed" in request.POST:
            self._retry(request, rows, request.POST.get("reason", "").strip())
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": _("Retry now"),
            "opts": self.opts,
            "media": self.media,
            "pks": pks,
            "samples": rows.defer("body", "headers")[:_SAMPLES],
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/inbox/inboxmessage/retry.html", context)

    def _retry(self, request: HttpRequest, rows: QuerySet[InboxMessage], reason: str) -> None:
        user: Any = request.user
        # A log entry knows its row's number and not its database.
        what = f"retry in {rows.db}"
        changes = [{"changed": {"fields": ["state"], "name": what, "object": reason or "-"}}]
        with transaction.atomic(rows.db), transaction.atomic(router.db_for_write(LogEntry)):
            done = list(store.retry(rows, actor=user.get_username(), reason=reason))
            for change in done:
                LogEntry.objects.log_actions(user.pk, change.changed, CHANGE, changes)
        count = sum(len(change.changed) for change in done)
        due = ngettext("%d message is due now.", "%d messages are due now.", count) % count
        self.message_user(request, due, messages.SUCCESS)
        for skipped in [skip for change in done for skip in change.skipped][:_SAMPLES]:
            self.message_user(
                request,
                _("Left alone: %(id)s of %(group)s, %(reason)s.")
                % {"id": skipped.id, "group": skipped.group, "reason": skipped.reason},
                messages.WARNING,
            )
