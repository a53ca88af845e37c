"""Other settings for a while."""

from __future__ import annotations

from typing import Any

from django.test import override_settings

from outbox.runtime.settings import merged


def override_outbox(**keys: Any) -> override_settings:
    """`override_settings` for some keys of OUTBOX; nested dicts are merged, all else is replaced.

    A block or a decorator: ``with override_outbox(BATCH_SIZE=1): …``.
    """
    return override_settings(OUTBOX=merged("OUTBOX", keys))
