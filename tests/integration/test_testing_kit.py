import pytest
from django.db import transaction
from django.test import TestCase, TransactionTestCase

from outbox import publish
from outbox.models import OutboxTodo
from outbox.runtime import hub
from outbox.testing import captured_messages, drain
from tests.outbox_support import rolled_back


def place_order():
    with transaction.atomic():
        publish("orders.placed", {"order": 7}, key="42")
        publish("mail.sent", {"to": "x"})


class Captured:
    def test_what_the_block_published(self):
        place_order()
        with captured_messages() as messages:
            messages.none()
            place_order()
            assert messages.one("orders.placed").payload == {"order": 7}
        assert messages.one("orders.placed").key == "42"
        assert [message.topic for message in messages.all()] == ["orders.placed", "mail.sent"]
        assert [message.payload for message in messages.of("mail.sent")] == [{"to": "x"}]
        assert messages.of("nothing") == []

    def test_not_what_was_rolled_back(self):
        with captured_messages() as messages:
            with rolled_back():
                place_order()
            messages.none()

    def test_says_what_it_found_instead(self):
        with captured_messages() as messages:
            with pytest.raises(AssertionError, match=r"found 0\.\nPublished:\n  nothing"):
                messages.one("orders.placed")
            place_order()
            place_order()
            with pytest.raises(AssertionError) as caught:
                messages.one("orders.placed")
            assert str(caught.value).startswith("Expected one 'orders.placed' message, found 2.")
            assert "  orders.placed key='42' b'{\"order\":7}'" in str(caught.value)
            with pytest.raises(AssertionError, match=r"Expected no message\.\nPublished:"):
                messages.none()

    def test_of_a_database(self):
        with captured_messages("sqlite") as messages:
            place_order()
            with transaction.atomic(using="sqlite"):
                publish("a", 1, using="sqlite")
        assert [message.topic for message in messages.all()] == ["a"]


class Drained:
    def setUp(self):
        self.hub = hub.get("default")
        self.addCleanup(self.hub.clear)

    def test_to_the_hub(self):
        place_order()
        report = drain()
        assert (report.published, report.outage) == (2, "")
        assert [record.topic for record in self.hub.records()] == ["orders.placed", "mail.sent"]
        assert self.hub.records("orders.placed")[0].body == b'{"order":7}'
        assert not OutboxTodo.objects.exists()
        assert drain().claimed == 0

    def test_each_broker_whatever_its_backend(self):
        brokers = {
            "default": {"BACKEND": "outbox.brokers.rabbitmq.RabbitMQPublisher"},
            "stream": {"BACKEND": "outbox.brokers.kafka.KafkaPublisher"},
        }
        outbox = {
            "SOURCE": "/shop",
            "BROKERS": brokers,
            "ROUTES": [("mail.*", "stream"), ("*", "default")],
        }
        with self.settings(OUTBOX=outbox):
            place_order()
            assert drain("stream").published == 1
            assert [record.topic for record in self.hub.records()] == ["mail.sent"]
            assert drain().published == 1

    def test_of_a_database(self):
        with transaction.atomic(using="sqlite"):
            publish("a", 1, using="sqlite")
        assert drain().published == 0
        assert drain(using="sqlite").published == 1


class TestCapturedInTestCase(Captured, TestCase):
    databases = ("default", "sqlite")


class TestCapturedInTransactionTestCase(Captured, TransactionTestCase):
    databases = ("default", "sqlite")


class TestDrainedInTestCase(Drained, TestCase):
    databases = ("default", "sqlite")


class TestDrainedInTransactionTestCase(Drained, TransactionTestCase):
    databases = ("default", "sqlite")
