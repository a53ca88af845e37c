"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.utils.translation import gettext_lazy as _


class OutboxConfig(AppConfig):
    """Opens and imports nothing that talks to a broker."""

    name = "outbox"
    verbose_name = _("Outbox")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks; let `override_settings` reach what was read from OUTBOX."""
        from outbox import checks, conf

        checks.register_all()
        setting_changed.connect(conf.reload, dispatch_uid="outbox.conf.reload")
