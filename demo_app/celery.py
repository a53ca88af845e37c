"""The shop's Celery app: one task, which drains the outbox."""

from __future__ import annotations

from celery import Celery

from outbox.tasks import BEAT_SCHEDULE

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = BEAT_SCHEDULE
