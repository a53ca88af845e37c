"""librdkafka's mock cluster in a process of its own: a Kafka that fails when it is told to.

It has one broker, keeps nothing on disk and replicates nothing: for faults of the client only. The
process obeys lines on its standard input and ends when that is closed, so it outlives no test run.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

PRODUCE = 0
"""Key of the produce request in the Kafka protocol."""

_BROKER = 1


class MockKafka:
    """The test's side: starts the process and tells it what to do."""

    def __init__(self, *topics: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), *topics],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.bootstrap = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    def fail_next(self, *codes: int, request: int = PRODUCE) -> None:
        """Answer the next requests of this kind with these error codes, one each; 0 is success."""
        self._tell("fail", request, *codes)

    def go_down(self) -> None:
        """Close all connections and accept none."""
        self._tell("down")

    def come_up(self) -> None:
        self._tell("up")

    def delay_answers(self, milliseconds: int) -> None:
        self._tell("rtt", milliseconds)

    def stop(self) -> None:
        self._process.communicate(timeout=10)

    def _tell(self, *words: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        assert self._answer() == "ok"

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


def _library() -> ctypes.CDLL:
    """The librdkafka inside the wheel; its functions take and give pointers."""
    import confluent_kafka

    package = Path(confluent_kafka.__file__).parent
    library = ctypes.CDLL(str(next((package.parent / "confluent_kafka.libs").glob("librdkafka*"))))
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures = {
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_broker_set_down": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_up": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_rtt": (number, [pointer, ctypes.c_int32, number]),
        "rd_kafka_mock_push_request_errors_array": (
            None,
            [pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(number)],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _host(topics: list[str]) -> None:
    """The other side: print the address, then obey until the input ends."""
    library = _library()
    handle = library.rd_kafka_new(0, None, ctypes.create_string_buffer(512), 512)
    cluster = library.rd_kafka_mock_cluster_new(handle, 1)
    for topic in topics:
        library.rd_kafka_mock_topic_create(cluster, topic.encode(), 4, 1)
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)  # noqa: T201
    for line in sys.stdin:
        verb, *numbers = line.split()
        values = [int(number) for number in numbers]
        if verb == "fail":
            request, *codes = values
            array = (ctypes.c_int * len(codes))(*codes)
            library.rd_kafka_mock_push_request_errors_array(cluster, request, len(codes), array)
        elif verb == "down":
            library.rd_kafka_mock_broker_set_down(cluster, _BROKER)
        elif verb == "up":
            library.rd_kafka_mock_broker_set_up(cluster, _BROKER)
        elif verb == "rtt":
            library.rd_kafka_mock_broker_set_rtt(cluster, _BROKER, values[0])
        print("ok", flush=True)  # noqa: T201


if __name__ == "__main__":
    _host(sys.argv[1:])
