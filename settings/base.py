"""What all settings of the demonstration project share."""

from __future__ import annotations

from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "demonstration only"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["outbox", "inbox", "demo_app"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}

OUTBOX = {
    "SOURCE": "/shop",
    "BROKERS": {"default": {"BACKEND": "outbox.brokers.memory.MemoryPublisher"}},
}
INBOX = {"BROKERS": {"default": {"BACKEND": "inbox.brokers.memory.MemoryConsumer"}}}


def sqlite(path: Path | str) -> dict[str, object]:
    """A database entry for several processes on one host: write-ahead log, writers take turns."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {
            # IMMEDIATE takes the write lock at BEGIN: a transaction that upgrades later fails.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
