"""Every snippet of docs/servers.md does what the page says; `tests/wire` asks the servers themselves."""

from __future__ import annotations

import json
import logging
import re

import pytest

from channels_wsdeny import log
from tests.clients import knock
from tests.docs.pages import DOCS, blocks, run

page = run("servers.md")
TEXT = (DOCS / "servers.md").read_text()
pytestmark = pytest.mark.django_db


def test_the_table_is_the_readmes():
    table = re.search(r"^\| server \|.*?\n\n", TEXT, re.MULTILINE | re.DOTALL).group()
    assert table in (DOCS.parent / "README.md").read_text()


async def test_a_server_that_offers_denials_sends_one():
    assert (await knock(page.application, "/")).status == 401


async def test_a_server_that_offers_nothing_gets_a_close_and_one_warning(caplog, monkeypatch):
    monkeypatch.setattr(log, "_warned", set())
    with caplog.at_level(logging.WARNING, "channels_wsdeny"):
        for _ in range(2):
            assert (await knock(page.application, "/", extensions={})).close is not None
    warnings = [record for record in caplog.records if not hasattr(record, "status")]
    assert len(warnings) == 1


async def test_the_observer_tells_what_a_server_offers(capsys):
    await knock(page.Observer(page.application), "/")
    assert json.loads(capsys.readouterr().out) == ["websocket.http.response"]


@pytest.mark.parametrize("line", blocks("servers.md", "sh")[0].splitlines())
def test_the_command_lines_have_options_that_exist(line):
    import importlib.util
    import shlex
    import subprocess
    import sys

    words = shlex.split(line)
    module = {"python": "channels_wsdeny.daphne", "granian": "granian.cli"}.get(words[0], words[0])
    if importlib.util.find_spec(module.split(".")[0]) is None:
        pytest.skip(f"{module} is not installed")
    command = (
        [sys.executable, "-m", module]
        if words[0] != "granian"
        else [sys.executable, "-c", "from granian.cli import entrypoint; entrypoint()"]
    )
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=False)
    for option in (word for word in words[3 if words[0] == "python" else 1 :] if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", helped.stdout), (
            f"{option} is no option of {words[0]}"
        )
