"""Make the shop's topics on a Kafka that creates them when asked about them."""

from __future__ import annotations

from demo_app.orders import CANCELLED, PLACED


def make_topics(servers: str) -> None:
    """Ask for each topic once; librdkafka's mock cluster then has it.

    The publisher never creates a topic: a misspelt one would get one replica and no owner.
    """
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers})
    for topic in (PLACED, CANCELLED):
        producer.list_topics(topic, timeout=10)
