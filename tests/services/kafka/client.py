"""What the tests need of any Kafka, the mock cluster included."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tests.services.base import ServerError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

PATIENCE = 10


def brokers(bootstrap: str) -> str:
    """Brokers do not tell their version to clients; their number, then."""
    count = len(_admin(bootstrap).list_topics(timeout=5).brokers)
    if not count:  # it listens but is not yet part of its cluster
        raise ServerError("no broker is up")
    return f"{count} broker" if count == 1 else f"{count} brokers"


def ask_for_groups(bootstrap: str) -> None:
    """They need a topic of Kafka's own, which is made for the first one and read after a start."""
    admin = _admin(bootstrap)  # it has to live as long as its answers are awaited
    admin.describe_consumer_groups(["a"], request_timeout=PATIENCE)["a"].result(2 * PATIENCE)


def create_topics(bootstrap: str, names: Iterable[str], partitions: int = 4) -> None:
    """Make those topics that are not there, and wait until they can be written to."""
    wanted = set(names)
    admin = _admin(bootstrap)
    cluster = admin.list_topics(timeout=PATIENCE)
    if missing := wanted - cluster.topics.keys():
        if cluster.controller_id in cluster.brokers:
            _create(admin, missing, partitions)
        else:
            _ask_for(bootstrap, missing)
    deadline = time.monotonic() + PATIENCE
    while not_ready := {name: n for name in wanted if (n := _ready(admin, name)) != partitions}:
        if time.monotonic() > deadline:
            raise ServerError(f"topics should have {partitions} partitions each: {not_ready}")
        time.sleep(0.02)


def _create(admin: "AdminClient", names: set[str], partitions: int) -> None:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic

    topics = [NewTopic(name, partitions, 1) for name in names]
    for answer in admin.create_topics(topics, request_timeout=PATIENCE).values():
        try:
            answer.result(2 * PATIENCE)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody was quicker
                raise


def _ask_for(bootstrap: str, names: set[str]) -> None:
    """The mock cluster has no controller. It makes a topic, of 4 partitions, for a producer."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap})
    for name in names:
        producer.list_topics(name, timeout=PATIENCE)


def _ready(admin: "AdminClient", name: str) -> int:
    """How many partitions have a leader."""
    partitions = admin.list_topics(name, timeout=PATIENCE).topics[name].partitions.values()
    return sum(partition.leader >= 0 for partition in partitions)


def _admin(bootstrap: str) -> "AdminClient":
    from confluent_kafka.admin import AdminClient

    # Log level 0: no complaints while we wait for a server that starts. Nor does it help then to
    # wait up to 10 seconds, as by default, between two tries.
    return AdminClient(
        {"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200}
    )
