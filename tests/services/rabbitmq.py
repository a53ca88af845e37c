"""RabbitMQ from the Debian package: a node and an epmd of our own, on the loopback address only."""

import secrets
from pathlib import Path

from tests.services.base import Server
from tests.services.packages import install

PROGRAMS = Path("/usr/lib/rabbitmq/bin")

CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
# The default of 50 MB and more would block every publisher on a small, full disk.
disk_free_limit.absolute = 10MB
log.console = true
log.console.level = info
log.file = false
"""


class RabbitMQ(Server):
    kind = "rabbitmq"
    variable = "RABBITMQ_URL"
    package = "rabbitmq-server"
    account = "rabbitmq"
    port_count = 3  # AMQP, Erlang distribution, epmd

    @classmethod
    def require(cls) -> None:
        if not (PROGRAMS / "rabbitmq-server").exists():
            install(cls.package)

    @classmethod
    def version_of(cls, url: str) -> str:
        from kombu import Connection

        # The whole handshake: a node that is still starting may already listen. Not `connect()`,
        # which would wait two seconds before it tries again.
        raw = Connection(url, connect_timeout=5).transport.establish_connection()
        try:
            return str(raw.server_properties["version"])
        finally:
            raw.close()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.ports[0]}//"

    def ctl(self, *arguments: str) -> str:
        """`rabbitmqctl` for this node; about two seconds a call."""
        return self.run(PROGRAMS / "rabbitmqctl", "--quiet", *arguments, env=self._env())

    def launch(self) -> None:
        if not (self.directory / "rabbitmq.conf").exists():
            self.write("rabbitmq.conf", CONFIG.format(port=self.ports[0]))
            self.write("enabled_plugins", "[].\n")
            self.write("env.conf", "")
            self.write(".erlang.cookie", secrets.token_hex(16)).chmod(0o400)
        # Started by us and not by the node, so that it is ours to stop.
        self.spawn("epmd", env=self._env())
        self.spawn(PROGRAMS / "rabbitmq-server", env=self._env())

    def _env(self) -> dict[str, str]:
        amqp, distribution, epmd = map(str, self.ports)
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": epmd,
            "RABBITMQ_CONFIG_FILE": f"{self.directory}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{self.directory}/env.conf",
            "RABBITMQ_CTL_ERL_ARGS": loopback,
            "RABBITMQ_DIST_PORT": distribution,
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self.directory}/enabled_plugins",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(self.directory),
            "RABBITMQ_MNESIA_BASE": f"{self.directory}/data",
            "RABBITMQ_NODENAME": "outbox@localhost",
            "RABBITMQ_NODE_PORT": amqp,
            # A start loads hundreds of modules, one small file read after another; threads that
            # spin a little before they sleep do it in 4.5 s instead of 7 s on two cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{loopback} +sbwtdio long",
        }
