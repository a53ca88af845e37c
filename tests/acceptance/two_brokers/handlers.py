"""A group reads from one broker: what comes from the other one has a group of its own."""

from __future__ import annotations

from demo_app.handlers import charge, ship, write_mail
from demo_app.orders import CANCELLED, PLACED
from inbox import handler, registry

# Those of demo_app take both topics from one broker.
registry.swap({})
for _group, _function in {"warehouse": ship, "billing": charge, "mail": write_mail}.items():
    handler(PLACED, group=_group)(_function)
    handler(CANCELLED, group=f"{_group}-cancelled")(_function)
