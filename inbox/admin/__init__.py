"""The admin's pages. Imported by django.contrib.admin alone: a project without it has none."""

from inbox.admin.messages import InboxMessageAdmin
from inbox.admin.quarantine import InboxQuarantineAdmin

__all__ = ["InboxMessageAdmin", "InboxQuarantineAdmin"]
