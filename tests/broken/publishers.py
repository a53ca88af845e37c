"""Publishers over the in-process hub, with one fault each."""

from __future__ import annotations

import dataclasses
import socket
import time
import uuid

from outbox.brokers.base import Confirm, Publisher, Status
from outbox.brokers.memory import MemoryPublisher
from outbox.exceptions import BrokerUnavailable, InvalidBroker


class AcksWithoutSending(MemoryPublisher):
    def submit(self, message, address):
        self._check_open()
        self._answers.append(Confirm(message.id, Status.ACKED))


class ConfirmsTwice(MemoryPublisher):
    def submit(self, message, address):
        super().submit(message, address)
        self._answers.append(Confirm(message.id, Status.ACKED))


class LosesAnAnswer(MemoryPublisher):
    def confirms(self, timeout):
        return super().confirms(timeout)[1:]


class ConfirmsAnother(MemoryPublisher):
    def confirms(self, timeout):
        return [Confirm(uuid.uuid4(), answer.status) for answer in super().confirms(timeout)]


class LosesOnCloseWhatItAcked(MemoryPublisher):
    """Collects a batch; what is not full when it closes is gone."""

    def open(self):
        super().open()
        self.batch = []

    def submit(self, message, address):
        self._check_open()
        self.batch.append((message, address))
        self._answers.append(Confirm(message.id, Status.ACKED))
        if len(self.batch) >= 64:
            self.flush()

    def flush(self):
        for message, address in self.batch:
            super().submit(message, address)
            self._answers.pop()
        self.batch.clear()


class SendsNothingTwice(MemoryPublisher):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen = set()

    def submit(self, message, address):
        if message.id not in self.seen:
            super().submit(message, address)
        self.seen.add(message.id)


class CutsLargeBodies(MemoryPublisher):
    def submit(self, message, address):
        super().submit(dataclasses.replace(message, body=message.body[:999_999]), address)


class LosesHeaders(MemoryPublisher):
    def submit(self, message, address):
        super().submit(dataclasses.replace(message, headers={}), address)


class AnswersOneByOne(MemoryPublisher):
    def confirms(self, timeout):
        self._check_open()
        return [self._answers.popleft()] if self._answers else []


class TakesFewAtATime(MemoryPublisher):
    window = 10


class RefusesAMegabyte(MemoryPublisher):
    flying = 0

    def submit(self, message, address):
        super().submit(message, address)
        self.flying += len(message.body)
        if self.flying > 1_000_000:
            self._answers[-1] = Confirm(message.id, Status.NACKED, "too much in flight")

    def confirms(self, timeout):
        self.flying = 0
        return super().confirms(timeout)


class Dawdles(MemoryPublisher):
    def confirms(self, timeout):
        time.sleep(0.6)
        return super().confirms(timeout)


class ForgetsWhenOpenedAgain(MemoryPublisher):
    def open(self):
        super().open()
        self._answers.clear()


class RemembersWhenClosed(MemoryPublisher):
    def close(self):
        self._is_open = False


class WorksWhenClosed(MemoryPublisher):
    def _check_open(self):
        self._check_owner()


class RaisesWhatItsClientRaises(MemoryPublisher):
    def _check_open(self):
        self._check_owner()
        if not self._is_open:
            raise OSError("not connected")


class WorksAnywhere(MemoryPublisher):
    def _check_owner(self):
        pass


class ImportsAtOnce(MemoryPublisher):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        import wave  # noqa: F401 - stands for a client


class ConnectsAtOnce(MemoryPublisher):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        with socket.socket() as connected:
            connected.settimeout(1)
            connected.connect_ex(("127.0.0.1", 1))


class TakesAnyOption(MemoryPublisher):
    def __init__(self, alias, url, options):
        super().__init__(alias, url, {"name": options["name"]} if "name" in options else {})


class SaysNotWhichOption(MemoryPublisher):
    def __init__(self, alias, url, options):
        if options.keys() - {"name"}:
            raise InvalidBroker(f"{sorted(options.keys() - {'name'})}: wrong.")
        super().__init__(alias, url, options)


class IgnoresTheAddress(MemoryPublisher):
    def submit(self, message, address):
        super().submit(message, {})


class SendsTheLastFirst(MemoryPublisher):
    def submit(self, message, address):
        super().submit(message, address)
        self._hub._log.insert(0, self._hub._log.pop())


class HangsWithoutABroker(Publisher):
    def open(self):
        time.sleep(2)
        raise BrokerUnavailable

    def close(self):
        pass
