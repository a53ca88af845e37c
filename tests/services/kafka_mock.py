"""librdkafka's mock cluster in its own process. It speaks Kafka's protocol; it is not Kafka."""

import re
import subprocess
import sys
from pathlib import Path

from tests.services.base import Server, ServerError
from tests.services.kafka.client import brokers
from tests.services.packages import Absent

HOST = Path(__file__).with_name("kafka_mock_host.py")


class KafkaMock(Server):
    kind = "kafka-mock"
    variable = "KAFKA_BOOTSTRAP_SERVERS"
    standing = "mock"
    remark = "librdkafka mock cluster"
    version = "-"
    port_count = 0  # the mock cluster chooses its own, new ones at each start
    patience = 20

    @classmethod
    def require(cls) -> None:
        try:
            import confluent_kafka  # noqa: F401
        except ImportError:
            raise Absent("pip install confluent-kafka") from None

    @classmethod
    def version_of(cls, url: str) -> str:
        return brokers(url)

    @property
    def url(self) -> str:
        addresses = re.findall(r"^[\d.]+:\d+(?:,[\d.]+:\d+)*$", self._log.read_text(), re.MULTILINE)
        if not addresses:
            raise ServerError("the mock cluster has not said its addresses")
        return str(addresses[-1])

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"KAFKA_KIND": self.standing}

    def launch(self) -> None:
        self._log.write_text("")  # addresses of an earlier start are void
        detached = ["--detached"] if self.owner is None else []
        self.spawn(sys.executable, HOST, *detached, stdin=subprocess.PIPE)
