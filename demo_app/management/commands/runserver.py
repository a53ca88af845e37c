"""Django's development server, which with the embedded settings also relays and consumes."""

from __future__ import annotations

from typing import Any

from django.contrib.staticfiles.management.commands import runserver

from demo_app import embedded
from demo_app.demo import database


class Command(runserver.Command):
    """With the memory broker, messages travel within this process: it does all the work."""

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Serve; the autoreloader calls this in its child only."""
        if embedded.wanted():
            database.make_ready()
            embedded.start()
            self.stdout.write(
                "Development: relay and consumers are threads of this web server.\n"
                f"The database is migrated; admin: {database.USER} / {database.USER}.\n"
            )
        super().inner_run(*args, **options)
