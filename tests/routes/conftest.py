import pytest


@pytest.fixture(autouse=True)
def _database(db):
    """Django closes old connections around each request."""
