"""Hosts librdkafka's mock cluster for other processes: python kafka_mock_host.py [--detached]

Prints its addresses, then stays until SIGTERM, and unless detached until its standard input ends,
which it does when the parent dies in whatever way.
"""

import signal
import sys

from confluent_kafka import Producer

BROKERS = 3


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # The cluster lives as long as this producer, inside its process.
    producer = Producer({"test.mock.num.brokers": str(BROKERS), "log_level": 3})
    brokers = producer.list_topics(timeout=10).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
    if "--detached" in sys.argv:
        signal.pause()
    else:
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
