"""Every snippet of docs/servers.md does what the page says; `tests/wire` asks the servers themselves."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys

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


DENIED_BY = """
import asyncio, django
django.setup()
from channels_wsdeny.testing import WebsocketClient
assert asyncio.run(WebsocketClient().handshake("/ws/monitor/")).status_code == 401
"""


@pytest.mark.parametrize(
    ("logging_setting", "shown"),
    [({}, ""), (page.LOGGING, "Denied /ws/monitor/: 401 not_authenticated\n")],
    ids=["djangos-default", "the-pages"],
)
def test_a_denial_is_shown_by_the_setting_of_the_page_and_not_by_djangos_default(
    logging_setting, shown, tmp_path
):
    (tmp_path / "site_settings.py").write_text(
        f"from testproject.settings import *\nDEBUG = True\nLOGGING = {logging_setting!r}\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", DENIED_BY],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "site_settings",
            "PYTHONPATH": f"{tmp_path}:{DOCS.parent}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, shown)


async def test_the_observer_tells_what_a_server_offers(capsys):
    await knock(page.Observer(page.application), "/")
    assert json.loads(capsys.readouterr().out) == ["websocket.http.response"]


@pytest.mark.parametrize("line", blocks("servers.md", "sh")[0].splitlines())
def test_the_command_lines_have_options_that_exist(line):
    import importlib.util
    import shlex

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
