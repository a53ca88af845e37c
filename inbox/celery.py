"""Celery's door to the inbox: tasks that take effect once. Needs the extra ``celery``.

Imports models inside its functions only, so that tasks may be declared before Django has loaded its
apps.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from celery import shared_task
from celery.contrib.django.task import DjangoTask
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.local import Proxy

from inbox import celery_options, registry
from inbox.conf import InboxSettings, get_settings
from inbox.delivery import Delivery, Disposition
from outbox.runtime.backoff import Backoff
from outbox.wire import DecodeError, EncodeError, Message, encode, to_headers
from outbox.wire.codecs import JSON
from outbox.wire.headers import RABBITMQ_PREFIX

if TYPE_CHECKING:
    from inbox.processing import Processor

__all__ = ["InboxTask", "inbox_task"]

log = logging.getLogger("inbox")

F = TypeVar("F", bound=Callable[[Message], object])

_HEADER: Final = "inbox-message"
"""One header for all attributes: a message's own headers must not meet Celery's ("task", "eta")."""

_PAUSE: Final = Backoff(timedelta(seconds=0.2), 2, timedelta(seconds=5))
"""Before a message goes back to the broker, which would bring it again at once."""


def inbox_task(topic: str | None = None, *, group: str, **options: Any) -> Callable[[F], Any]:
    """Decorate a function (sync or ``async def``) that takes the `Message`; returns a Celery task.

    The function runs in one transaction with the row that makes it run once, as with `handler`. The
    task takes one argument, the payload; the id of the message is the id of the task, which a
    redelivered task keeps, and its topic is ``topic``, by default the task's name. ``options`` are
    Celery's (``name``, ``rate_limit``, ``time_limit``…). Raises `ValueError` for an option that
    would break the guarantee, and what `handler` raises.
    """
    celery_options.refuse(options)

    def decorate(function: F) -> Any:
        if type(function) is Proxy:
            message = "inbox_task takes a function, and this is a task: write one task for a topic."
            raise TypeError(message)
        name = options.get("name") or f"{function.__module__}.{function.__name__}"
        handled = topic or name
        registry.registrar(handled, group, by_celery=True)(function)

        @functools.wraps(function)
        def run(task: InboxTask, /, *args: Any, **kwargs: Any) -> object:
            if task.request.called_directly:
                return function(*args, **kwargs)
            return _take_in(task, args, kwargs)

        forced = {option: value for option, (value, _) in celery_options.FORCED.items()}
        given = options | forced | {"name": name, "topic": handled, "group": group}
        return shared_task(bind=True, base=InboxTask, **given)(run)

    return decorate


class InboxTask(DjangoTask):  # type: ignore[misc]  # Celery has no types
    """What `inbox_task` makes. Called like a function it is the function, without the inbox."""

    topic: str
    group: str

    @classmethod
    def on_bound(cls, app: object) -> None:  # noqa: ARG003 - Celery's signature
        """Put back what ``task_annotations`` have changed, and say so."""
        for option, (value, reason) in celery_options.FORCED.items():
            if getattr(cls, option) != value:
                log.warning(
                    "%s: %s=%r of task_annotations is not obeyed: %s",
                    *(cls.name, option, getattr(cls, option), reason),
                )
                setattr(cls, option, value)

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: Any = None, **options: Any
    ) -> Any:
        """Send the payload, the one argument; ``task_id`` must be a UUID.

        Raises `EncodeError` for a payload that is not JSON, `TypeError`, `ValueError`, and what
        Celery raises when its broker cannot be reached.
        """
        celery_options.refuse({"serializer": options.get("serializer") or "json"})
        if task_id is not None:
            _message_id(task_id)
        encode(_only_argument(args or (), kwargs or {}), JSON)
        return super().apply_async(args, kwargs, task_id=task_id, **options)

    def deliver(self, message: Message, **options: Any) -> Any:
        """Send a whole message, which keeps its id, key and headers; its topic must be the task's.

        ``options`` are those of `apply_async`. Raises `ValueError` for another topic.
        """
        celery_options.refuse({"serializer": options.get("serializer") or "json"})
        if message.topic != self.topic:
            text = f"Task {self.name!r} handles topic {self.topic!r}, not {message.topic!r}."
            raise ValueError(text)
        headers = {_HEADER: to_headers(message, RABBITMQ_PREFIX), **options.pop("headers", {})}
        task_id = str(message.id)
        return super().apply_async((message.body,), task_id=task_id, headers=headers, **options)

    def retry(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refused: Celery sends a copy that nobody confirms, and gives the message up if it fails.

        Raises `RuntimeError`.
        """
        message = "Raise inbox.Retry(after=...): an inbox_task is retried from the inbox table."
        raise RuntimeError(message)


@dataclass(frozen=True, eq=False)
class _Unreadable(Delivery):
    """A task that carries no message: the inbox keeps it as evidence."""

    problem: str = ""

    @functools.cached_property
    def message(self) -> Message:
        raise DecodeError(self.problem)


class _Thread(threading.local):
    """What a thread of a pool keeps from task to task."""

    def __init__(self) -> None:
        self._settings: InboxSettings | None = None
        self._processor: Processor | None = None
        self.refused = 0

    def processor(self) -> Processor:
        from inbox.processing import Processor

        settings = get_settings()
        if self._processor is None or self._settings is not settings:
            self._settings, self._processor = settings, Processor(settings)
        return self._processor


_thread = _Thread()


def processor() -> Processor:
    """The processor of this thread: it remembers what it owes to a database that went away."""
    return _thread.processor()


def _take_in(task: InboxTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The task's body. Returns the `Result`, for Celery's log and result backend."""
    if task.request.is_eager:
        return _take_in_eagerly(_delivery(task, args, kwargs))
    try:
        outcome = processor().handle(_delivery(task, args, kwargs))
    except Exception as error:
        # Nothing is recorded, so the message must not end as a failed task.
        if _thread.refused == 0:
            log.exception("group %s: the message goes back to the broker", task.group)
        _send_back(error)
    if outcome.disposition is Disposition.RETRY:
        if _thread.refused == 0:
            log.warning("group %s: the database takes nothing: %s", task.group, outcome.error)
        _send_back(outcome.error)
    _thread.refused = 0
    if outcome.disposition is Disposition.DEAD:
        raise Reject(f"The database refuses this message: {outcome.error}", requeue=False)
    return outcome.result.value


def _take_in_eagerly(delivery: Delivery) -> str:
    """In a test what the handler raised is raised after it was recorded, as Celery does it."""
    outcome = processor().handle(delivery)
    if outcome.error is not None:
        raise outcome.error
    return outcome.result.value


def _send_back(error: Exception | None) -> NoReturn:
    """Requeue, after a while. Not Celery's retry: see `InboxTask.retry`."""
    _thread.refused += 1
    with contextlib.suppress(SoftTimeLimitExceeded):
        time.sleep(_PAUSE.delay(_thread.refused).total_seconds())
    raise Reject(str(error), requeue=True)


def _delivery(task: InboxTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Delivery:
    request = task.request
    redelivered = bool((request.delivery_info or {}).get("redelivered") or request.retries)
    try:
        payload = _only_argument(args, kwargs)
        fields = (request.headers or {}).get(_HEADER)
        if fields is not None:
            return Delivery(task.group, _strings(fields), _bytes(payload), redelivered)
        message = Message(
            id=_message_id(request.id),
            topic=task.topic,
            body=encode(payload, JSON),
            source=f"celery:{request.origin or ''}"[:255],
            time=dt.datetime.now(dt.UTC),
        )
        return Delivery.of(message, task.group, redelivered=redelivered)
    except (TypeError, ValueError, EncodeError) as error:
        evidence = repr((args, kwargs)).encode("utf-8", "backslashreplace")
        names = {"task": task.name, "id": str(request.id)}
        return _Unreadable(task.group, names, evidence, redelivered, problem=str(error))


def _only_argument(args: Any, kwargs: Mapping[str, Any]) -> object:
    if len(args) + len(kwargs) != 1 or not kwargs.keys() <= {"payload"}:
        message = (
            f"An inbox_task takes one argument, its payload, not {len(args)} by position and "
            f"{sorted(kwargs)} by name. Give several values as one dict."
        )
        raise TypeError(message)
    return args[0] if args else kwargs["payload"]


def _message_id(task_id: object) -> uuid.UUID:
    try:
        return uuid.UUID(str(task_id))
    except ValueError as error:
        message = f"The task id is the message's id and must be a UUID, not {task_id!r}."
        raise ValueError(message) from error


def _strings(fields: object) -> dict[str, str]:
    if not isinstance(fields, Mapping):
        message = f"The header {_HEADER!r} is no table of a message's headers."
        raise TypeError(message)
    return {str(name): str(value) for name, value in fields.items()}


def _bytes(body: object) -> bytes:
    if not isinstance(body, bytes):
        message = f"With the header {_HEADER!r} the argument is the body, as bytes."
        raise TypeError(message)
    return body
