"""The Django app."""

from __future__ import annotations

import importlib.util

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class InboxConfig(AppConfig):
    """Registers the handlers of each installed app's ``handlers`` module; opens nothing."""

    name = "inbox"
    label = "inbox"
    verbose_name = _("Inbox")
    default_auto_field = "django.db.models.BigAutoField"

    def import_models(self) -> None:
        """Say so if another package named ``outbox`` hides ours: no check could run any more."""
        try:
            super().import_models()
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("outbox"):
                raise
            other = importlib.util.find_spec("outbox")
            message = (
                f"(inbox.E005) 'outbox' is imported from {other and other.origin}, which is not "
                "django-outbox-inbox: the inbox needs its outbox.wire. Rename the other one."
            )
            raise ImproperlyConfigured(message) from error

    def ready(self) -> None:
        """Register the checks, find the handlers, follow changes of the settings in tests."""
        from inbox import checks, conf

        checks.register_all()
        setting_changed.connect(conf.reload, dispatch_uid="inbox.conf.reload")
        autodiscover_modules("handlers")
