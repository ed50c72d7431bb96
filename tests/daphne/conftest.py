import pytest

from tests.support.daphne.servers import daphne


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Our Daphne as it starts by default."""
    with daphne(tmp_path_factory.mktemp("daphne")) as server:
        yield server
