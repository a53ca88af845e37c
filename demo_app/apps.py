"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class DemoConfig(AppConfig):
    """The shop."""

    name = "demo_app"
    default_auto_field = "django.db.models.BigAutoField"
