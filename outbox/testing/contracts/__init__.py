"""The rules of our ports as tests, for whoever writes a broker driver or a store."""

from outbox.testing.contracts.publisher import PublisherContract

__all__ = ["PublisherContract"]
