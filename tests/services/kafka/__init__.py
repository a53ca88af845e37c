from tests.services.kafka.client import create_topics
from tests.services.kafka.server import Kafka

__all__ = ["Kafka", "create_topics"]
