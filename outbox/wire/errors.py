"""Errors of the wire contract."""

from __future__ import annotations


class WireError(Exception):
    """A message does not follow the wire contract."""


class EncodeError(WireError):
    """A payload cannot be turned into bytes; nothing was written or sent."""


class DecodeError(WireError):
    """A delivery cannot be turned into a message."""
