"""The tables. State is computed by the store: there is no status column to update."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from outbox.wire import Message


class OutboxMessage(models.Model):
    """A published message, insert-only: never updated, so change data capture can read it."""

    seq = models.BigAutoField(primary_key=True)
    id = models.UUIDField(unique=True)
    created_at = models.DateTimeField(db_column="time", db_default=Now())
    slot = models.PositiveSmallIntegerField()
    broker = models.CharField(max_length=100)
    topic = models.CharField(max_length=249)
    source = models.CharField(max_length=255)
    key = models.CharField(max_length=255, blank=True)
    content_type = models.CharField(max_length=255, db_column="datacontenttype")
    headers = models.JSONField()
    body = models.BinaryField(db_column="data")

    class Meta:
        db_table = "outbox_message"
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        permissions: ClassVar = [
            ("view_payload", _("Can see payloads and headers")),
            ("retry_message", _("Can retry messages")),
        ]

    def __str__(self) -> str:
        return f"{self.topic} {self.id}"

    def to_message(self) -> Message:
        """The row as it travels."""
        return Message(
            id=self.id,
            topic=self.topic,
            body=bytes(self.body),
            source=self.source,
            time=self.created_at,
            key=self.key,
            content_type=self.content_type,
            headers=self.headers,
        )


class TodoState(models.IntegerChoices):
    """Why a message is still in `OutboxTodo`."""

    NEW = 0, _("new")
    RETRY = 1, _("waiting for its next attempt")
    PARKED = 2, _("parked behind its key")
    DEAD = 3, _("dead")


class OutboxTodo(models.Model):
    """What is not on the broker yet.

    No foreign key to the message: its check would lock message rows, and those leave in ranges.
    """

    ord = models.BigAutoField(primary_key=True)
    seq = models.BigIntegerField(unique=True)
    broker = models.CharField(max_length=100)
    slot = models.PositiveSmallIntegerField()
    key = models.CharField(max_length=255, db_default="", blank=True)
    state = models.PositiveSmallIntegerField(choices=TodoState.choices, db_default=TodoState.NEW)
    due_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveIntegerField(db_default=0)
    # Attempts that no longer count, since a person has granted another round of MAX_ATTEMPTS.
    forgiven = models.PositiveIntegerField(db_default=0)
    # How often it was written again. Who read it before, as a relay that is sending it, can tell
    # that a person has decided otherwise since; more than 0 means that `OutboxEvent` knows it.
    revision = models.PositiveIntegerField(db_default=0)
    error_class = models.CharField(max_length=100, db_default="", blank=True)
    error = models.TextField(db_default="", blank=True)

    class Meta:
        db_table = "outbox_todo"
        verbose_name = _("message to do")
        verbose_name_plural = _("messages to do")
        indexes: ClassVar = [
            models.Index(
                name="outbox_todo_new",
                fields=["broker", "slot", "seq"],
                condition=models.Q(state=TodoState.NEW),
            ),
            models.Index(
                name="outbox_todo_due",
                fields=["broker", "due_at"],
                condition=models.Q(state=TodoState.RETRY),
            ),
            models.Index(
                name="outbox_todo_chain",
                fields=["broker", "key", "seq"],
                condition=models.Q(state__gt=TodoState.NEW),
            ),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                name="outbox_todo_state_known", condition=models.Q(state__in=TodoState.values)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_state_display()} {self.seq}"


class OutboxLane(models.Model):
    """The log of a lane: who held it, and until when.

    Append-only, a compare-and-set by its primary key: a move inserts the row after the one it
    believes to be the newest, so a relay that lost the lane fails. A lease that ends no later than
    it was written is a lane given back.
    """

    pk = models.CompositePrimaryKey("broker", "lane", "seq")
    broker = models.CharField(max_length=100)
    lane = models.PositiveSmallIntegerField()
    seq = models.BigIntegerField()
    epoch = models.BigIntegerField()
    owner = models.UUIDField()
    lease_until = models.DateTimeField()
    published = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    # Of how many it was one: that says which messages left by it.
    lanes = models.PositiveSmallIntegerField(db_default=1)
    # Lowest and highest position that left at the first attempt, to tell later when that was.
    first_done = models.BigIntegerField(null=True)
    last_done = models.BigIntegerField(null=True)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "outbox_lane"
        verbose_name = _("lane")
        verbose_name_plural = _("lanes")

    def __str__(self) -> str:
        return f"{self.broker}/{self.lane} #{self.seq}"


class OutboxEvent(models.Model):
    """The timeline of exceptional changes, append-only: what goes well writes nothing here.

    ``seq`` is the message's position; no foreign key, as with `OutboxTodo`.
    """

    id = models.BigAutoField(primary_key=True)
    seq = models.BigIntegerField()
    at = models.DateTimeField(db_default=Now())
    name = models.CharField(max_length=20)
    attempt = models.PositiveIntegerField(db_default=0)
    detail = models.TextField(db_default="", blank=True)
    actor = models.CharField(max_length=255, db_default="", blank=True)
    reason = models.TextField(db_default="", blank=True)

    class Meta:
        db_table = "outbox_event"
        verbose_name = _("event")
        verbose_name_plural = _("events")
        indexes: ClassVar = [models.Index(name="outbox_event_of", fields=["seq", "id"])]

    def __str__(self) -> str:
        return f"{self.name} {self.seq}"
