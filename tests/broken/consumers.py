"""Consumers of the in-process hub, with one fault each."""

from __future__ import annotations

import dataclasses
import itertools
import time

from inbox.brokers.memory import MemoryConsumer
from inbox.delivery import Disposition
from inbox.exceptions import ConsumerUnavailable
from outbox.wire import DecodeError

ACK, RETRY, DEAD = Disposition.ACK, Disposition.RETRY, Disposition.DEAD


class LosesHeaders(MemoryConsumer):
    def poll(self, timeout):
        return [dataclasses.replace(each, headers={}) for each in super().poll(timeout)]


class LosesSome(MemoryConsumer):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.count = itertools.count(1)

    def poll(self, timeout):
        came = super().poll(timeout)
        for delivery in came:
            if next(self.count) % 10 == 0:
                self.settle(delivery, ACK)
                return []
        return came


class AcksWhenPolled(MemoryConsumer):
    def poll(self, timeout):
        came = super().poll(timeout)
        self._open.clear()
        return came


class ForgetsToAck(MemoryConsumer):
    def settle(self, delivery, disposition):
        if disposition is not ACK:
            super().settle(delivery, disposition)


class NeverFlags(MemoryConsumer):
    def poll(self, timeout):
        return [dataclasses.replace(each, redelivered=False) for each in super().poll(timeout)]


class AcksAllBefore(MemoryConsumer):
    def settle(self, delivery, disposition):
        for tag in list(self._open):
            if tag == delivery.tag:
                break
            del self._open[tag]
        super().settle(delivery, disposition)


class SettlesTheNextInstead(MemoryConsumer):
    """Of a connection that has ended, a delivery's tag is given to another."""

    def settle(self, delivery, disposition):
        if delivery.tag not in self._open:
            self._hub.take(self.group, self.topics, 0)
        super().settle(delivery, disposition)


class AcksOnRetry(MemoryConsumer):
    def settle(self, delivery, disposition):
        super().settle(delivery, ACK if disposition is RETRY else disposition)


class GivesUp(MemoryConsumer):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.retries = 0

    def settle(self, delivery, disposition):
        self.retries += disposition is RETRY
        super().settle(delivery, ACK if self.retries > 3 else disposition)


class RetriesLast(MemoryConsumer):
    def settle(self, delivery, disposition):
        record = self._open.get(delivery.tag)
        if disposition is RETRY and record is not None:
            super().settle(delivery, ACK)
            self._hub.append(dataclasses.replace(record, redelivered=True))
        else:
            super().settle(delivery, disposition)


class DropsTheDead(MemoryConsumer):
    def settle(self, delivery, disposition):
        super().settle(delivery, ACK if disposition is DEAD else disposition)


class RetriesTheDead(MemoryConsumer):
    def settle(self, delivery, disposition):
        super().settle(delivery, RETRY if disposition is DEAD else disposition)


class TakesMore(MemoryConsumer):
    def poll(self, timeout):
        self.prefetch = 1000
        return super().poll(timeout)


class SleepsThrough(MemoryConsumer):
    def poll(self, timeout):
        time.sleep(timeout)
        return super().poll(0)


class Dawdles(MemoryConsumer):
    def poll(self, timeout):
        time.sleep(1)
        return super().poll(timeout)


class Judges(MemoryConsumer):
    def poll(self, timeout):
        came = super().poll(timeout)
        try:
            _ = [each.message for each in came]
        except DecodeError:
            self._open.clear()
            return []
        return came


class OpensOnce(MemoryConsumer):
    is_open = False

    def open(self):
        if self.is_open:
            raise RuntimeError("already open")
        self.is_open = True


class WithoutACause(MemoryConsumer):
    def open(self):
        raise ConsumerUnavailable

    def poll(self, timeout):
        raise ConsumerUnavailable


class RaisesWhatItsClientRaises(MemoryConsumer):
    def open(self):
        raise OSError

    def poll(self, timeout):
        raise ConsumerUnavailable


class WorksAnywhere(MemoryConsumer):
    def _check_process(self):
        pass


class ImportsAtOnce(MemoryConsumer):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        import wave  # noqa: F401 - stands for a client


class TakesAnyOption(MemoryConsumer):
    def __init__(self, alias, url, options, **keywords):
        name = options.get("name", "")
        super().__init__(alias, url, {"name": name} if isinstance(name, str) else {}, **keywords)
