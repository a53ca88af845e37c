"""Exchanges and topics of the outbox's brokers: list, compare, create."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser

from outbox import routes
from outbox.brokers import publishers
from outbox.conf import get_settings
from outbox.exceptions import BrokerError, BrokerUnavailable, InvalidBroker, UnknownTopic
from outbox.runtime.commands import BROKER_UNREACHABLE, ERROR, USAGE
from outbox.runtime.topology import Shape, TopologyObject
from outbox.runtime.topology_command import TopologyCommand


class Command(TopologyCommand):
    """Topics of Kafka are those that ROUTES names without a pattern, and those of ``--topic``."""

    help = "Compare the brokers' exchanges and topics with the settings, and create missing ones."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which topics, besides those that the routes name."""
        super().add_arguments(parser)
        parser.add_argument(
            "--topic",
            action="append",
            default=[],
            metavar="TOPIC",
            help="a topic that is published and that no route names exactly (repeatable)",
        )

    def survey(
        self, options: dict[str, Any], shape: Shape, *, declare: bool
    ) -> Iterator[tuple[str, TopologyObject]]:
        """Ask each broker about the addresses that are known."""
        known = get_settings().brokers
        aliases = options["broker"] or list(known)
        if unknown := sorted(set(aliases) - set(known)):
            message = f"Not in OUTBOX['BROKERS']: {', '.join(unknown)}."
            raise CommandError(message, returncode=USAGE)
        try:
            for alias in dict.fromkeys(aliases):
                addresses = routes.addresses(alias, options["topic"])
                for each in publishers[alias].topology(addresses, shape, declare=declare):
                    yield alias, each
        except UnknownTopic as error:
            raise CommandError(str(error), returncode=USAGE) from error
        except BrokerUnavailable as error:
            raise CommandError(str(error), returncode=BROKER_UNREACHABLE) from error
        except (BrokerError, InvalidBroker) as error:
            raise CommandError(str(error), returncode=ERROR) from error
        finally:
            publishers.close_all()
