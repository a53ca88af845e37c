"""The demonstration's database, made ready."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.core.management import call_command

USER = "demo"
"""Name and password of the superuser."""


def make_ready() -> None:
    """Migrate, and make the superuser unless there is a user."""
    call_command("migrate", verbosity=0)
    users = get_user_model().objects
    if not users.exists():
        users.create_superuser(USER, "", USER)
