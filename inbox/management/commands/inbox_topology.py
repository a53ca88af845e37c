"""Queues, bindings and topics of the inbox's groups: list, compare, create."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser

from inbox import registry
from inbox.brokers import make_consumer
from inbox.conf import get_settings
from inbox.exceptions import ConsumerUnavailable, InvalidBroker
from outbox.runtime.commands import BROKER_UNREACHABLE, ERROR, USAGE
from outbox.runtime.topology import Shape, TopologyObject
from outbox.runtime.topology_command import TopologyCommand


class Command(TopologyCommand):
    """What the handlers' groups need, with where their dead letters go."""

    help = "Compare the groups' queues and topics with the settings, and create missing ones."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which groups."""
        super().add_arguments(parser)
        parser.add_argument(
            "--group", action="append", metavar="NAME", help="only this group (repeatable)"
        )

    def survey(
        self, options: dict[str, Any], shape: Shape, *, declare: bool
    ) -> Iterator[tuple[str, TopologyObject]]:
        """Ask the broker of each group."""
        settings = get_settings()
        # A group that Celery feeds has no broker of ours.
        known = registry.groups(by_celery=False)
        groups = options["group"] or known
        if not groups:
            message = (
                "No handler of a broker's deliveries is registered (an inbox_task is fed by "
                "Celery): write one in the 'handlers' module of an app."
            )
            raise CommandError(message, returncode=USAGE)
        _check("--group", groups, known, "the groups that have a handler")
        _check("--broker", options["broker"] or [], settings.brokers, "INBOX['BROKERS']")
        try:
            for group in dict.fromkeys(groups):
                alias = settings.group(group).broker
                if alias in (options["broker"] or [alias]):
                    consumer = make_consumer(settings, group, registry.topics(group))
                    for each in consumer.topology(shape, declare=declare):
                        yield alias, each
        except ConsumerUnavailable as error:
            raise CommandError(str(error), returncode=BROKER_UNREACHABLE) from error
        except InvalidBroker as error:
            raise CommandError(str(error), returncode=ERROR) from error


def _check(option: str, given: list[str], known: object, where: str) -> None:
    assert isinstance(known, dict | list)
    if unknown := sorted(set(given) - set(known)):
        message = f"{option}: {', '.join(unknown)} not among {where}: {', '.join(known) or 'none'}."
        raise CommandError(message, returncode=USAGE)
