"""Every store of ours keeps the contract of a store."""

import pytest

from outbox.testing import StoreContract
from tests.outbox_support import VENDORS

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


class TestStore(StoreContract):
    """PostgreSQL where DATABASE_URL names one, and SQLite."""

    @pytest.fixture(autouse=True, params=VENDORS)
    def database(self, request) -> None:
        self.using = request.param
