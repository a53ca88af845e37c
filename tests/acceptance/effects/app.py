"""The Celery app, with the inbox's chore every second."""

from celery import Celery

from inbox.tasks import BEAT_SCHEDULE

app = Celery("effects")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {name: {**entry, "schedule": 1.0} for name, entry in BEAT_SCHEDULE.items()}
