from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from .servers import daphne

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .servers import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our Daphne as it starts by default."""
    with daphne(tmp_path_factory.mktemp("daphne"), "tests.daphne.apps:scripted") as server:
        yield server


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., AbstractContextManager[Server]]:
    """``serve(application, *options)``: a server of this test's own."""
    return partial(daphne, tmp_path)
