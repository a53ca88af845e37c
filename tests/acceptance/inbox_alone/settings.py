"""A service that only consumes: of our two apps it installs one."""

import os

SECRET_KEY = "test"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["inbox", "tests.acceptance.inbox_alone.stock"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}}
if "RABBITMQ_URL" in os.environ:
    INBOX = {
        "BROKERS": {
            "default": {
                "BACKEND": "inbox.brokers.rabbitmq.RabbitMQConsumer",
                "URL": "env:RABBITMQ_URL",
                "OPTIONS": {"exchange": os.environ["GROUP"]},
            }
        }
    }
