"""``python -m channels_wsdeny.daphne``."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from daphne.cli import CommandLineInterface as DaphneCommandLineInterface

from channels_wsdeny.daphne.cli import CommandLineInterface

from .client import ask, body, start
from .servers import GUARD, ROOT, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .servers import Server


def test_every_option_of_daphne_is_taken() -> None:
    stock, ours = DaphneCommandLineInterface().parser, CommandLineInterface().parser
    assert ours._option_string_actions.keys() == stock._option_string_actions.keys()


def test_port_and_host_are_taken(tmp_path: Path) -> None:
    arguments = ["channels_wsdeny.daphne", "-p", "0", "-b", "127.0.0.1", "tests.daphne.apps:scripted"]
    with serving(tmp_path, arguments) as server:
        assert ask(server, [start(401), body()]).status == 401


@pytest.mark.parametrize(
    ("options", "names"), [(["-s", "mine"], ["mine"]), (["--no-server-name"], [])], ids=["named", "unnamed"]
)
def test_the_server_name_is_taken(
    serve: Callable[..., AbstractContextManager[Server]], options: list[str], names: list[str]
) -> None:
    with serve("tests.daphne.apps:scripted", *options) as server:
        assert ask(server, [start(401), body()]).all("server") == names


def test_the_help_says_how_it_was_called() -> None:
    command = [sys.executable, "-m", "channels_wsdeny.daphne", "--help"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=GUARD).stdout
    assert output.startswith(b"usage: python -m channels_wsdeny.daphne")
