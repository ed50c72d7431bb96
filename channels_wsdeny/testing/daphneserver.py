"""Daphne as a live server, in a process of its own."""

from __future__ import annotations

import queue
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from .live_server import PATIENCE, LiveServer, in_memory, site

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..types import ASGIApp


class DaphneServer(LiveServer):
    """A `LiveServer` on the Daphne that can deny.

    Raises `ImproperlyConfigured` if Daphne is not installed, or for an in-memory SQLite database, which no
    other process can see; `RuntimeError`, with the process's own traceback, if it does not start.
    """

    @contextmanager
    def _serving(self) -> Iterator[None]:
        try:
            from ..daphne.testing import DaphneProcess  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ImproperlyConfigured(
                "A live server on Daphne needs it installed: pip install 'channels-wsdeny[daphne]'."
            ) from error
        for connection in in_memory():
            raise ImproperlyConfigured(
                f"Daphne runs in a process of its own, which cannot see the in-memory database "
                f"{connection.alias!r}. Give it a file (DATABASES[{connection.alias!r}]['TEST'] = "
                "{'NAME': 'test.sqlite3'}), or use uvicorn, which runs in a thread."
            )
        names = {each.alias: each.settings_dict["NAME"] for each in connections.all()}
        now = {"ALLOWED_HOSTS": list(settings.ALLOWED_HOSTS), "DEBUG": settings.DEBUG}
        load = partial(_load, self.application, names, now, serve_static=self.serve_static)
        process = DaphneProcess(self.host, load)
        with warnings.catch_warnings():
            # The threads of the tests hold nothing that the child needs.
            warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
            process.start()
        try:
            _wait_for_start(process)
            self.port = process.port.value
            yield
        finally:
            process.terminate()
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()


def _wait_for_start(process: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not process.ready.wait(0.05):
        is_alive = process.is_alive()
        try:
            error, trace = process.errors.get(timeout=0 if is_alive else 1)
        except queue.Empty:
            pass
        else:
            raise RuntimeError(f"Daphne did not start:\n{trace}") from error
        if not is_alive:
            raise RuntimeError(f"Daphne did not start: its process ended with {process.exitcode}.")
        if time.monotonic() > deadline:
            raise RuntimeError(f"Daphne did not start within {PATIENCE:g} s.")


def _load(
    application: ASGIApp | None, names: Mapping[str, Any], now: Mapping[str, Any], *, serve_static: bool
) -> ASGIApp:
    """In the child process: the site, on the tests' databases, with the settings as they are `now`."""
    # A forked child has asgiref's executor, but not its thread.
    SyncToAsync.single_thread_executor = ThreadPoolExecutor(max_workers=1)
    # Before the site is imported, which may read them then: not every child begins as a copy of the tests.
    for name, value in now.items():
        setattr(settings, name, value)
    loaded = site(application, serve_static=serve_static)
    for alias, name in names.items():
        connections[alias].settings_dict["NAME"] = settings.DATABASES[alias]["NAME"] = name
    return loaded
