"""Where the rows of the groups are."""

from __future__ import annotations

from typing import Final

from django.db import connections, router

from inbox.conf import get_settings
from inbox.models import InboxMessage

# One probe of the unique index a group: an index by message id alone would have to be kept up
# with each message, and the groups that a process has handlers for need not be all.
_GROUPS: Final = """
WITH RECURSIVE known (name) AS (
  SELECT (SELECT group_name FROM inbox_message ORDER BY group_name LIMIT 1)
  UNION ALL
  SELECT (SELECT group_name FROM inbox_message WHERE group_name > known.name
          ORDER BY group_name LIMIT 1)
  FROM known WHERE known.name IS NOT NULL
)
SELECT name FROM known WHERE name IS NOT NULL"""


def aliases() -> list[str]:
    """The databases with rows of a group: the routers' own and those that INBOX['GROUPS'] names."""
    own = router.db_for_write(InboxMessage)
    named = {group.database for group in get_settings().groups.values() if group.database}
    return [own, *sorted(named - {own})]


def groups(using: str) -> list[str]:
    """The groups that have taken a message in, by name, whether or not they have handlers."""
    with connections[using].cursor() as cursor:
        cursor.execute(_GROUPS)
        return [name for (name,) in cursor.fetchall()]
