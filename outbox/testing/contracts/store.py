"""The contract of `outbox.store.Store`, for every database."""

from __future__ import annotations

from outbox.testing.contracts.store_chains import ChainTests
from outbox.testing.contracts.store_leases import LeaseTests
from outbox.testing.contracts.store_pages import PageTests


class StoreContract(LeaseTests, PageTests, ChainTests):
    """The rules of `outbox.store.Store` as tests, to be run by pytest or unittest.

    Subclass it in a test file, set ``using`` to the database's alias, and give ``make_store`` if
    the store is not the one that ``outbox.store.stores`` has for that database. Relays race in
    threads, so the tests need real commits: mark the subclass with
    ``pytest.mark.django_db(transaction=True)``, or derive it from Django's `TransactionTestCase`
    too. Tables must be empty at the beginning of each test.
    """
