"""The suite's settings without the demonstration, which needs Celery."""

from settings.test import *

INSTALLED_APPS = ["outbox", "inbox"]
