"""How fast the outbox and the inbox are, each time against the obvious alternative."""
