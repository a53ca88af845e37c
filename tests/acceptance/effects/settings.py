"""A service whose messages are Celery tasks: of our two apps it installs one."""

import os
from datetime import timedelta

import dj_database_url

SECRET_KEY = "test"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["inbox", "tests.acceptance.effects"]
DATABASES = {"default": dj_database_url.parse(os.environ["DATABASE_URL"])}
INBOX = {
    "MAX_ATTEMPTS": int(os.environ.get("MAX_ATTEMPTS", "10")),
    "BACKOFF": {"BASE": timedelta(seconds=0.2), "MAX": timedelta(seconds=1)},
}
CELERY_TASK_DEFAULT_QUEUE = os.environ["QUEUE"]
# Each pool process gets one message at a time, so that a kill meets a known one.
CELERY_WORKER_PREFETCH_MULTIPLIER = 4
