"""Publishers by alias: which one a thread gets, and what is wrong with those it does not get."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from outbox.brokers import Publisher, publishers
from outbox.exceptions import BrokerUnavailable, InvalidBroker
from tests.forked import in_child

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


class TestPublishersByAlias:
    @pytest.fixture(autouse=True)
    def brokers(self, settings) -> Iterator[None]:
        settings.OUTBOX = {
            "SOURCE": "/shop",
            "BROKERS": {
                "default": {"BACKEND": "outbox.brokers.memory.MemoryPublisher"},
                "stream": {"BACKEND": "outbox.brokers.memory.MemoryPublisher"},
                "absent": {"BACKEND": "outbox.brokers.nowhere.Publisher"},
                "other": {"BACKEND": "outbox.wire.Message"},
                "typo": {
                    "BACKEND": "outbox.brokers.memory.MemoryPublisher",
                    "OPTIONS": {"nmae": "x"},
                },
                "rabbit": {
                    "BACKEND": "outbox.brokers.rabbitmq.RabbitMQPublisher",
                    "URL": "amqp://localhost/",
                },
            },
        }
        publishers.close_all()
        yield
        publishers.close_all()

    def test_an_alias_has_one_publisher_in_a_thread(self) -> None:
        mine = publishers["default"]
        assert publishers["default"] is mine
        assert publishers["stream"] is not mine
        others: list[Publisher] = []
        thread = threading.Thread(target=lambda: others.append(publishers["default"]))
        thread.start()
        thread.join()
        assert others[0] is not mine

    def test_a_child_gets_one_of_its_own(self) -> None:
        def use() -> None:
            publishers["default"].open()

        use()
        assert in_child(use) == "None"

    def test_other_settings_make_another_one(self, settings) -> None:
        mine = publishers["default"]
        mine.open()
        settings.OUTBOX = dict(settings.OUTBOX, SOURCE="/other")
        assert publishers["default"] is not mine
        with pytest.raises(BrokerUnavailable):
            mine.confirms(0)

    def test_close_all_closes_and_forgets(self) -> None:
        mine = publishers["default"]
        mine.open()
        publishers.close_all()
        with pytest.raises(BrokerUnavailable):
            mine.confirms(0)
        assert publishers["default"] is not mine

    @pytest.mark.parametrize(
        ("alias", "text"),
        [
            ("steam", r"'steam' is not in OUTBOX\['BROKERS'\]\. Did you mean 'stream'\?"),
            ("zzz", "Known: default, stream"),
            ("absent", "cannot be imported: No module named 'outbox.brokers.nowhere'"),
            ("other", "is no subclass of outbox.brokers.Publisher"),
            ("typo", "Did you mean 'name'"),
        ],
    )
    def test_a_wrong_alias_is_refused(self, alias, text) -> None:
        with pytest.raises(InvalidBroker, match=text):
            publishers[alias]

    def test_a_missing_client_is_named_with_its_remedy(self, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "kombu", None)
        with pytest.raises(InvalidBroker, match=r'pip install "django-outbox-inbox\[rabbitmq\]"'):
            publishers["rabbit"]
