"""The rules of our ports as tests, for whoever writes a broker driver or a store."""

from outbox.testing.contracts.publisher import PublisherContract
from outbox.testing.contracts.store import StoreContract

__all__ = ["PublisherContract", "StoreContract"]
