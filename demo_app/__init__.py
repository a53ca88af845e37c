"""A small shop and its warehouse, billing and mail: what a project with both apps looks like."""

# So that a nudge after a commit reaches this project's Celery broker from every process.
from demo_app.celery import app as celery_app

__all__ = ["celery_app"]
