"""Helpers that both apps share and that are no part of the wire contract: private, no promise."""
