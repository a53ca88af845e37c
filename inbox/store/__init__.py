"""All SQL of the inbox that writes: every write names the state it starts from."""

from inbox.store.events import KEPT_TEXT
from inbox.store.retrying import BATCH, Change, Skipped, retry
from inbox.store.runs import (
    GIVEN_BACK,
    INSERT_ONCE,
    KEPT_BODY,
    LEASE,
    admit,
    claim_due,
    fail,
    give_back,
    judge,
    note,
    quarantine,
    take,
)

__all__ = [
    "BATCH",
    "GIVEN_BACK",
    "INSERT_ONCE",
    "KEPT_BODY",
    "KEPT_TEXT",
    "LEASE",
    "Change",
    "Skipped",
    "admit",
    "claim_due",
    "fail",
    "give_back",
    "judge",
    "note",
    "quarantine",
    "retry",
    "take",
]
