"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

from inbox import conf


class InboxConfig(AppConfig):
    """Registers the handlers of each installed app's ``handlers`` module; opens nothing."""

    name = "inbox"
    label = "inbox"
    verbose_name = _("Inbox")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Find the handlers, and follow changes of the settings in tests."""
        setting_changed.connect(conf.reload, dispatch_uid="inbox.conf.reload")
        autodiscover_modules("handlers")
