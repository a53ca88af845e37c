"""What a driver's author fills in for `PublisherContract`, and what its tests are made of."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

from outbox.brokers.base import Address, Confirm, Publisher
from outbox.exceptions import BrokerMisconfigured, BrokerUnavailable, InvalidBroker
from outbox.runtime.proving import equal, holds, raises
from outbox.wire import Message

_RULE: Final = "Broken rule of outbox.brokers.Publisher: "
ONE_ANSWER: Final = _RULE + "each submission gets exactly one Confirm, of that very message."
RECEIVED: Final = _RULE + "ACKED is said only of what the broker has, headers and bytes unchanged."
PIPELINED: Final = _RULE + "submit() never waits for an answer; a whole window may be in flight."
IN_TIME: Final = _RULE + "confirms() waits at most its timeout, and only while there is no answer."
LOST: Final = _RULE + (
    "a lost or missing connection raises BrokerUnavailable from any method, within seconds."
)
NOTHING_KEPT: Final = _RULE + "close() drops what is in flight, never raises; open() begins anew."
ONE_OWNER: Final = _RULE + (
    "use in a forked child or in another thread raises BrokerError and harms nobody."
)
LAZY: Final = _RULE + "nothing is opened or imported before open()."
OPTIONS: Final = _RULE + "a wrong option is refused with InvalidBroker that names the nearest one."
UNROUTABLE: Final = _RULE + "a message that nobody is bound to receive is RETURNED, with a reason."
ADDRESSED: Final = _RULE + "the route's address says where a message goes, not its topic."
IN_ORDER: Final = _RULE + "of one key, what was confirmed first arrives first."


class PublisherBench:
    """The hooks of `PublisherContract`. Each test gets an instance of its own."""

    topic: str = "contract.orders"
    other_topic: str = "contract.mail"
    nowhere: str = "contract.nowhere"
    """A topic that nobody receives; used if ``reports_unroutable``."""
    reports_unroutable: ClassVar[bool] = False
    """Does the broker say that nobody was bound to receive a message?"""
    keeps_key_order: ClassVar[bool] = True
    """Do messages of one key, each sent after its predecessor's confirm, arrive in that order?"""
    option: ClassVar[str] = ""
    """One of the driver's options, which is then misspelt; empty: it has none."""
    forwards_options: ClassVar[bool] = False
    """Are unknown options handed to the client library, which refuses them in `open`?"""
    client_modules: ClassVar[Sequence[str]] = ()
    """Modules that must not be imported before `open`, such as ``("kombu", "amqp")``."""
    pipelined: ClassVar[int] = 1000
    """Submissions that may at least be unanswered; the relay needs them for its speed."""
    largest_body: ClassVar[int] = 1_000_000
    """Bytes that must arrive in one piece; the default is OUTBOX['MAX_BODY']'s."""
    patience: ClassVar[float] = 10.0
    """Seconds for the broker to do anything at all."""

    def publisher(self) -> Publisher:
        """Make a publisher that is not open. Each call makes another one."""
        raise NotImplementedError("PublisherContract.publisher() must return a new publisher.")

    def received(self, topic: str, count: int) -> list[Message]:
        """All that arrived for a topic in this test, in order; wait for ``count`` at least."""
        raise NotImplementedError("PublisherContract.received() must return the messages.")

    def unreachable(self) -> Publisher | None:
        """Make a publisher whose broker is not there; None if that cannot be."""
        raise NotImplementedError(
            "PublisherContract.unreachable() must return a publisher whose broker is not there, "
            "such as one for port 1 of 127.0.0.1, or None if it always is."
        )

    def address(self, topic: str) -> Address:
        """The address that sends a message to the receiver of another topic than its own."""
        return {"topic": topic}

    def cut(self) -> bool:
        """Break the connection as the network would; False if there is none to break."""
        return False

    def restore(self) -> None:
        """End what `cut` began, so that `open` succeeds again."""

    def _message(self, number: int = 0, **changes: Any) -> Message:
        fields: dict[str, Any] = {
            "id": uuid.uuid4(),
            "topic": self.topic,
            "body": b'{"number":%d}' % number,
            "source": "/contract",
            "time": dt.datetime(2026, 11, 23, 12, 0, 0, number, tzinfo=dt.UTC),
        }
        return Message(**(fields | changes))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Publisher]:
        with contextlib.closing(self.publisher()) as publisher:
            publisher.open()
            yield publisher

    def _collect(self, publisher: Publisher, count: int) -> list[Confirm]:
        answers: list[Confirm] = []
        while len(answers) < count:
            more = publisher.confirms(self.patience)
            holds(more, ONE_ANSWER, f"{len(answers)} of {count} answers came")
            answers += more
        return answers

    def _send(self, publisher: Publisher, *messages: Message) -> None:
        for message in messages:
            publisher.submit(message, {})
        self._acked(self._collect(publisher, len(messages)), *messages)

    def _acked(self, answers: Sequence[Confirm], *messages: Message) -> None:
        found = sorted((answer.message_id, answer.status.value) for answer in answers)
        equal(found, sorted((message.id, "acked") for message in messages), ONE_ANSWER)

    def _arrived(self, messages: Sequence[Message]) -> None:
        arrived = {message.id: message for message in self.received(self.topic, len(messages))}
        for message in messages:
            equal(arrived.get(message.id), message, RECEIVED)

    def _refuses(self, publisher: Publisher) -> None:
        raises(BrokerUnavailable, LOST, lambda: publisher.submit(self._message(), {}))
        raises(BrokerUnavailable, LOST, lambda: publisher.confirms(0))

    def _refused_with(self, option: str) -> Exception:
        made = self.publisher()
        options = {**made.options, option: "x"}
        if not self.forwards_options:
            return raises(InvalidBroker, OPTIONS, lambda: type(made)(made.alias, made.url, options))
        with contextlib.closing(type(made)(made.alias, made.url, options)) as publisher:
            return raises(BrokerMisconfigured, OPTIONS, publisher.open)

    def _use_on(self, publisher: Publisher) -> None:
        """Until it fails; at most for our patience."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            publisher.submit(self._message(), {})
            publisher.confirms(0.1)
