"""Quarantined deliveries: the evidence, read only."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _

from inbox.admin.base import Database, Group, InboxAdmin, text
from inbox.models import InboxQuarantine, Reason
from inbox.selection import QUARANTINED, Selection
from outbox.runtime import pages


class ByReason(admin.SimpleListFilter):
    """Why."""

    title, parameter_name = _("reason"), "reason"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Any:
        """All of them."""
        return Reason.choices

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[InboxQuarantine]
    ) -> QuerySet[InboxQuarantine]:
        """The reason that was chosen."""
        return queryset.filter(reason=self.value()) if self.value() else queryset


@admin.register(InboxQuarantine)
class InboxQuarantineAdmin(InboxAdmin):
    """Deliveries that must not run."""

    list_display = ("badge", "reason", "age", "group", "topic_text", "body_size", "identity")
    list_filter = (ByReason, Group, Database)
    arrival = "arrived_at"
    search_help_text = _("id: topic:orders.* or a bare id")
    fieldsets: ClassVar[Any] = [
        (None, {"fields": ["badge", "reason", "identity", "group", "topic_text", "arrived_at"]}),
        (_("Evidence"), {"fields": ["detail_text", "fingerprints", "body_size"]}),
    ]
    _private: ClassVar[Any] = (_("Content"), {"fields": ["headers_text", "body_text"]})

    @admin.display(description=_("state"))
    def badge(self, row: InboxQuarantine) -> SafeString:
        """The same of all."""
        return pages.badge(QUARANTINED)

    @admin.display(description=_("age"))
    def age(self, row: InboxQuarantine) -> SafeString | str:
        """Since it arrived."""
        return pages.age(row.arrived_at)

    @admin.display(description=_("topic"))
    def topic_text(self, row: InboxQuarantine) -> str:
        """As it was named; may be anything."""
        return Truncator(row.topic).chars(250)

    @admin.display(description=_("detail"))
    def detail_text(self, row: InboxQuarantine) -> SafeString:
        """With its line breaks."""
        return text(row.detail)

    @admin.display(description=_("fingerprints"))
    def fingerprints(self, row: InboxQuarantine) -> SafeString | None:
        """Side by side."""
        if row.fingerprint is None or row.known_fingerprint is None:
            return None
        return format_html(
            '<table class="ob-pair"><tr><th scope="col">{}</th><th scope="col">{}</th></tr>'
            "<tr><td><code>{}</code></td><td><code>{}</code></td></tr></table>",
            _("this delivery"),
            _("taken in before"),
            bytes(row.fingerprint).hex(),
            bytes(row.known_fingerprint).hex(),
        )

    @admin.display(description=_("headers"))
    def headers_text(self, row: InboxQuarantine) -> SafeString:
        """As they came, cut."""
        return pages.pretty(row.headers)

    @admin.display(description=_("body"))
    def body_text(self, row: InboxQuarantine) -> SafeString:
        """What is kept of it."""
        return pages.pretty(bytes(row.body))

    def selected(
        self, rows: QuerySet[InboxQuarantine], selection: Selection
    ) -> QuerySet[InboxQuarantine]:
        """The deliveries that the selection means."""
        return selection.quarantined(rows)

    def get_fieldsets(self, request: HttpRequest, obj: InboxQuarantine | None = None) -> Any:
        """Content for those who may see it."""
        return [*self.fieldsets, *([self._private] if self.may(request, "view_payload") else [])]
