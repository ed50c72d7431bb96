import resource
from contextlib import ExitStack

import pytest

from tests.support.live import Site


@pytest.fixture(scope="session")
def start_site(tmp_path_factory):
    """A function that starts two servers, uvicorn and Daphne, on one database and one Redis."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:  # The servers inherit it: some tests open thousands of sockets.
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard if 0 <= hard < 8192 else 8192), hard))
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Site.running(tmp_path_factory.mktemp("live"), **options))


@pytest.fixture(scope="session", params=["core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"])
def shared_site(request, start_site):
    """The two servers, by both layers of channels_redis; kept for all tests."""
    return start_site(layer=request.param)


@pytest.fixture
def site(shared_site):
    """The two servers, with the users as they were at first."""
    shared_site.reset()
    yield shared_site
    shared_site.opened.close()
