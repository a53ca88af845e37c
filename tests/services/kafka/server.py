"""Apache Kafka (KRaft): broker and controller in one JVM, on the loopback address only."""

import base64
import re
import uuid
from typing import ClassVar

from tests.services.base import Server
from tests.services.kafka import distribution
from tests.services.kafka.client import ask_for_groups, brokers


class Kafka(Server):
    kind = "kafka"
    variable = "KAFKA_BOOTSTRAP_SERVERS"
    account = "nobody"
    port_count = 2  # broker, controller

    OPTIONS: ClassVar[dict[str, str]] = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        # As in production, where a topic has an owner: a misspelt one is an error.
        "auto.create.topics.enable": "false",
        "num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        # Its own topics: one replica is all there can be, 50 partitions are slow to make.
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # After a SIGKILL the controller first waits for the end of the dead broker's session.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # The default of 128 MB is allocated at once.
        "log.cleaner.dedupe.buffer.size": "4194304",
    }
    JVM: ClassVar[list[str]] = [
        # Fast to start rather than fast in the long run: half the processor time of a start.
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        "-XX:+ExitOnOutOfMemoryError",
        "-Xmx384m",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        # It names the version.
        "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.utils.internals.AppInfoParser=info",
    ]

    makes_archive = False

    @classmethod
    def require(cls) -> None:
        if not distribution.fetched().archive.exists():
            cls._make_archive()

    @classmethod
    def _make_archive(cls) -> None:
        """A start and a stop, after which each start takes half the time."""
        server = cls()
        try:
            server.makes_archive = True
            server.start()
            server.stop()
            distribution.fetched().keep_archive(server.directory / "classes.jsa")
        finally:
            server.remove()

    @classmethod
    def version_of(cls, url: str) -> str:
        return brokers(url)

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def version(self) -> str:
        super().version  # noqa: B018 - raises if it does not answer
        return re.findall(r"Kafka version: (\S+)", self._log.read_text())[-1]

    @property
    def environment(self) -> dict[str, str]:
        # A broker does not tell its version to clients.
        return super().environment | {"KAFKA_KIND": self.standing, "KAFKA_VERSION": self.version}

    def ask(self) -> None:
        brokers(self.url)
        ask_for_groups(self.url)  # else the first consumers find none and try again a second later

    def launch(self) -> None:
        config = self.directory / "server.properties"
        if not (self.directory / "data/meta.properties").exists():
            broker, controller = (f"127.0.0.1:{port}" for port in self.ports)
            options = self.OPTIONS | {
                "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
                "controller.quorum.voters": f"1@{controller}",
                "log.dirs": f"{self.directory}/data",
            }
            lines = [f"{name}={value}\n" for name, value in options.items()]
            self.write("server.properties", "".join(lines))
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            self.run(
                *self._java(), "kafka.tools.StorageTool", "format",
                "--config", config, f"--cluster-id={cluster}",  # which may begin with a dash
            )  # fmt: skip
        archive = f"-XX:ArchiveClassesAtExit={self.directory}/classes.jsa"
        self.spawn(*self._java(*[archive] * self.makes_archive), "kafka.Kafka", config)

    def _java(self, *options: str) -> list[str]:
        kafka = distribution.fetched()
        if kafka.archive.exists():
            options = (f"-XX:SharedArchiveFile={kafka.archive}", *options)
        # Native libraries of the compressions are unpacked where they end with the server.
        place = f"-Djava.io.tmpdir={self.directory}"
        return [str(kafka.java), *self.JVM, *options, place, "-cp", kafka.classpath]
