"""The tables: what each group has taken in, and the evidence of what it could not."""

from __future__ import annotations

import datetime as dt
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from outbox.wire import Message


class State(models.IntegerChoices):
    """Where a message is in its group."""

    RECEIVED = 0, _("received")
    """An attempt is noted and its outcome is not: it runs, or it died running."""
    PROCESSED = 1, _("processed")
    PARKED = 2, _("parked")
    """Failed; runs again at next_attempt_at."""
    DEAD = 3, _("dead")
    DISCARDED = 4, _("discarded")


class InboxMessage(models.Model):
    """One message in one group. The unique pair is what makes an effect happen once."""

    id = models.BigAutoField(primary_key=True)
    group_name = models.CharField(max_length=100)
    message_id = models.UUIDField()
    fingerprint = models.BinaryField(max_length=16)
    fp_version = models.PositiveSmallIntegerField()
    state = models.PositiveSmallIntegerField(choices=State.choices)
    attempts = models.PositiveIntegerField(db_default=0)
    """Runs that were counted; also the token of the run that may record its outcome."""
    forgiven = models.PositiveIntegerField(db_default=0)
    """Attempts before a person's last retry: they do not count towards MAX_ATTEMPTS."""
    duplicates = models.PositiveIntegerField(db_default=0)
    duplicate_at = models.DateTimeField(null=True, blank=True)
    """When the last one came. A column and no rows: a storm of them must not fill a table."""
    received_at = models.DateTimeField(db_default=Now())
    processed_at = models.DateTimeField(null=True, blank=True)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    topic = models.CharField(max_length=249)
    key = models.CharField(max_length=255, blank=True)
    source = models.CharField(max_length=255)
    time = models.DateTimeField()
    content_type = models.CharField(max_length=255, blank=True)
    headers = models.JSONField()
    body = models.BinaryField(null=True, blank=True)
    """Kept while the handler may have to run again; gone once it is processed."""
    error_class = models.CharField(max_length=100, db_default="", blank=True)
    error = models.TextField(db_default="", blank=True)

    class Meta:
        db_table = "inbox_message"
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        permissions: ClassVar = [
            ("view_payload", _("Can view payloads and headers")),
            ("retry_message", _("Can run a message again")),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(name="inbox_message_once", fields=["group_name", "message_id"]),
            models.CheckConstraint(
                name="inbox_message_state_known", condition=models.Q(state__in=State.values)
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                name="inbox_message_due",
                fields=["group_name", "next_attempt_at"],
                condition=models.Q(state=State.PARKED),
            ),
            models.Index(
                name="inbox_message_open",
                fields=["group_name", "state"],
                condition=~models.Q(state=State.PROCESSED),
            ),
            # The newest processed rows, for statistics: appended at its right edge only.
            models.Index(
                name="inbox_message_done",
                fields=["processed_at"],
                condition=models.Q(state=State.PROCESSED),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.group_name} {self.message_id}"

    def to_message(self) -> Message:
        """The message as it arrived. Raises `ValueError` when the body is no longer kept."""
        if self.body is None:
            message = f"The body of {self} is not kept."
            raise ValueError(message)
        # Without USE_TZ Django hands out local times without a zone.
        local = self.time if timezone.is_aware(self.time) else timezone.make_aware(self.time)
        return Message(
            id=self.message_id,
            topic=self.topic,
            body=bytes(self.body),
            source=self.source,
            time=local.astimezone(dt.UTC),
            key=self.key,
            content_type=self.content_type,
            headers=self.headers,
        )


class Happening(models.TextChoices):
    """What a row of the timeline records."""

    FAILED = "failed", _("failed")
    PARKED = "parked", _("parked")
    DEAD = "dead", _("dead")
    RETRIED = "retried", _("retried")


class InboxEvent(models.Model):
    """One exceptional step of a message, written in the transaction that took it.

    A message that is processed at once has none; when it was received, processed and last repeated
    is in its own row.
    """

    id = models.BigAutoField(primary_key=True)
    message = models.ForeignKey(
        InboxMessage, on_delete=models.CASCADE, related_name="events", db_index=False
    )
    at = models.DateTimeField(db_default=Now())
    name = models.CharField(max_length=20, choices=Happening.choices)
    attempt = models.PositiveIntegerField()
    detail = models.TextField(blank=True)
    actor = models.CharField(max_length=150, db_default="", blank=True)
    """The person; empty when it was the consumer."""
    reason = models.TextField(db_default="", blank=True)

    class Meta:
        db_table = "inbox_event"
        verbose_name = _("event")
        verbose_name_plural = _("events")
        # By time first: an order by id alone would be served by reading the primary key's index.
        indexes: ClassVar = [models.Index(name="inbox_event_of", fields=["message", "at", "id"])]

    def __str__(self) -> str:
        return f"{self.message_id} {self.name}"


class Reason(models.TextChoices):
    """Why a delivery is in quarantine."""

    UNREADABLE = "unreadable", _("unreadable")
    CONFLICT = "conflict", _("same id, other content")


class InboxQuarantine(models.Model):
    """A delivery that must not run, as evidence for a person."""

    id = models.BigAutoField(primary_key=True)
    group_name = models.CharField(max_length=100)
    message_id = models.UUIDField(null=True, blank=True)
    reason = models.CharField(max_length=20, choices=Reason.choices)
    detail = models.TextField()
    fingerprint = models.BinaryField(max_length=16, null=True, blank=True)
    known_fingerprint = models.BinaryField(max_length=16, null=True, blank=True)
    """Of the message that the group had taken in under this id before."""
    topic = models.TextField(blank=True)
    headers = models.JSONField()
    body = models.BinaryField()
    """The first bytes only."""
    body_size = models.PositiveBigIntegerField()
    arrived_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "inbox_quarantine"
        verbose_name = _("quarantined delivery")
        verbose_name_plural = _("quarantined deliveries")
        indexes: ClassVar = [
            models.Index(name="inbox_quarantine_arrived", fields=["group_name", "arrived_at"]),
            models.Index(
                name="inbox_quarantine_message",
                fields=["message_id", "arrived_at", "id"],
                condition=models.Q(message_id__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.group_name} {self.get_reason_display()} {self.pk}"
