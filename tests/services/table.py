"""The truth table: what was real in this run, and what was therefore not run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Standing = Literal["real", "given", "compatible", "mock", "absent"]

TITLES = {
    "postgres": "PostgreSQL",
    "rabbitmq": "RabbitMQ",
    "kafka": "Kafka",
    "chromium": "Chromium",
}

# Which marker needs what. A stand-in serves a test only if the test says so.
NEEDS = {
    "postgres": "postgres",
    "rabbitmq": "rabbitmq",
    "kafka_any": "kafka",
    "kafka_real": "kafka",
    "browser": "chromium",
}
STAND_INS: tuple[Standing, ...] = ("mock", "compatible")


@dataclass(frozen=True)
class Row:
    kind: str
    standing: Standing
    version: str = "-"
    remark: str = ""

    def serves(self, marker: str) -> bool:
        if self.standing == "absent":
            return False
        return marker != "kafka_real" or self.standing not in STAND_INS


def missing(rows: Iterable[Row], required: str) -> list[str]:
    """What OUTBOX_TEST_REQUIRE names and this run does not have; a stand-in does not count."""
    names = {name.strip() for name in required.split(",") if name.strip()}
    have = {row.kind for row in rows if row.standing not in ("absent", *STAND_INS)}
    return sorted(names - have)


def render(rows: Iterable[Row], not_run: Mapping[str, int]) -> str:
    """`not_run` counts tests by the marker that kept them from running."""
    lines = []
    for row in rows:
        remarks = [row.remark] if row.remark else []
        for marker, kind in NEEDS.items():
            if kind == row.kind and (count := not_run.get(marker)):
                plural = "test" if count == 1 else "tests"
                remarks.append(f"{count} {plural} marked {marker} NOT RUN")
        left = f"{TITLES[row.kind]:<12} {row.version:<10} {row.standing:<10}"
        lines.append(f"{left} {'; '.join(remarks)}".rstrip())
    return "\n".join(lines)
