"""Parts of a page: no way to change, a count that ends, a badge."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from django.core.paginator import Paginator
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator

COUNTED: Final = 10_001
"""Rows that are counted for a page: a large table is never counted to its end."""


class ReadOnly:
    """Of a `ModelAdmin`: nothing can be added, changed or deleted, by nobody."""

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """No."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """No."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """No."""
        return False


class CappedPaginator(_Paginator):
    """Pages of the first rows; what comes after `COUNTED` is found by a filter or a search."""

    @cached_property
    def count(self) -> int:
        """At most `COUNTED`."""
        rows: Any = self.object_list
        return int(rows.order_by()[:COUNTED].count())


def badge(name: str, text: object, icon: str) -> SafeString:
    """A state as text and icon: colour alone says nothing to many."""
    return format_html('<span class="ob-badge ob-{}">{} {}</span>', name, icon, text)
