"""What the pages of messages and of quarantined deliveries share."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from inbox import databases, registry
from inbox.conf import get_settings
from inbox.selection import Selection, parse
from outbox.runtime.pages import ReadOnlyAdmin

M = TypeVar("M", bound=Model)

DATABASE: Final = "database"
"""The parameter of a page that names another database than the routers' own."""


class Database(admin.SimpleListFilter):
    """Which database the page shows: each list is of one."""

    title, parameter_name = _("database"), DATABASE

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Any:
        """Nothing to choose with one database: then there is no filter."""
        aliases = databases.aliases()
        return [(alias, alias) for alias in aliases] if len(aliases) > 1 else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[M]) -> QuerySet[M]:
        """`InboxAdmin.get_queryset` has chosen it, for the page of one row as well."""
        return queryset


class Group(admin.SimpleListFilter):
    """The groups that code and settings know, without a look at the table."""

    title, parameter_name = _("group"), "group"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Any:
        """By name."""
        return [(name, name) for name in sorted({*registry.groups(), *get_settings().groups})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[M]) -> QuerySet[M]:
        """The group that was chosen."""
        return queryset.filter(group_name=self.value()) if self.value() else queryset


class _Rows(ChangeList):
    """Links stay in the database of the list."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self._database = request.GET.get(DATABASE)

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        # What a list does not show may be large.
        return super().get_queryset(request, *args, **kwargs).defer("body", "headers")

    def url_for_result(self, result: Any) -> str:
        url = super().url_for_result(result)
        return f"{url}?{urlencode({DATABASE: self._database})}" if self._database else url


class InboxAdmin(ReadOnlyAdmin):
    """A list of one database, newest first, searched with the words of the commands."""

    ordering = ("-id",)
    # What has no index must not be sorted by.
    sortable_by: ClassVar[Any] = ()
    # Makes Django show the search box; `get_search_results` says what it searches.
    search_fields = ("message_id",)

    class Media:
        """One style sheet, no script."""

        css: ClassVar[Any] = {"all": ["inbox/admin.css"]}

    arrival: ClassVar[str]
    """The field with the time of arrival."""

    def selected(self, rows: QuerySet[Any], selection: Selection) -> QuerySet[Any]:
        """The rows that the selection means."""
        raise NotImplementedError

    @admin.display(description=_("group"))
    def group(self, row: Any) -> str:
        """The group's name."""
        return str(row.group_name)

    @admin.display(description=_("id"))
    def identity(self, row: Any) -> SafeString | None:
        """The message's id; a quarantined delivery may have none."""
        return identity(row.message_id)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Ours keeps to its database."""
        return _Rows

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """The rows of the database that the page names, if it is one of the inbox."""
        rows = super().get_queryset(request)
        alias = request.GET.get(DATABASE)
        return rows.using(alias if alias in databases.aliases() else databases.aliases()[0])

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search by the words of `inbox.selection.parse`; what is no such word finds nothing."""
        selection = parse(search_term)
        if selection is None:
            hint = _("Not understood. %s") % self.search_help_text
            self.message_user(request, hint, messages.WARNING)
            return queryset.none(), False
        found = self.selected(queryset, selection)
        # By number, PostgreSQL may read all numbers for a few ids.
        return found.order_by(f"-{self.arrival}") if selection.ids else found, False


def identity(value: uuid.UUID | None) -> SafeString | None:
    """An id on one line."""
    return None if value is None else format_html('<code class="ob-id">{}</code>', value)


def text(value: str) -> SafeString:
    """With its line breaks."""
    return format_html('<pre class="ob-payload">{}</pre>', value)
