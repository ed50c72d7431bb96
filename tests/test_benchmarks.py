"""The benchmarks' machinery: every row is there, liars are caught. No figure is judged."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from importlib.util import find_spec

import pytest

from benchmarks import __main__ as command
from benchmarks import items, servers
from benchmarks.answers import ACCEPTED, CLOSED, answer_of, denied
from benchmarks.cases import Case
from benchmarks.contenders import (
    BARE,
    BY_HAND,
    FASTAPI,
    FLOOR,
    LITESTAR,
    OURS,
    PEERS,
    QUART,
    STARLETTE,
    Contender,
)
from benchmarks.figures import Figure, compare, figure_of, number
from benchmarks.plan import Plan, Report
from benchmarks.processes import ROOT, environment
from benchmarks.tables import Table
from benchmarks.targets import Target, table_of
from benchmarks.turns import Failed, take_turns
from benchmarks.visitors import NOBODY, SOMEBODY

START = {"type": "websocket.http.response.start", "status": 401, "headers": []}
BODY = {"type": "websocket.http.response.body", "body": b"no"}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmarks") / "db.sqlite3"
    prepare = [sys.executable, "-m", "benchmarks.database"]
    subprocess.run(prepare, cwd=ROOT, env=environment(path), check=True)
    return path


@pytest.fixture
def plan(database):
    """As little of everything as there can be."""
    return Plan(database=database, random=random.Random(1), quick=True, rounds=1, seconds=0)


def rows(table):
    return {name: dict(zip(table.columns, cells, strict=True)) for name, cells in table.rows}


def measured(report):
    """The tables of an item by the beginning of their titles; fails where something was not measured."""
    for table in report.tables:
        for name, cells in rows(table).items():
            for column, cell in cells.items():
                assert cell not in {"FAILED", "not available"}, (table.title, name, column)
    return {table.title.split()[0]: rows(table) for table in report.tables}


# The items. Peers that are not installed are the only ones that may be missing.

needs_peers = pytest.mark.skipif(
    any(find_spec(peer.needs[0]) is None for peer in PEERS if peer.needs),
    reason="the other frameworks are not installed: they come with the extra [bench]",
)


@needs_peers
def test_denials_of_all_contenders_are_measured(plan):
    tables = measured(items.ITEMS[1](plan))
    everybody = {each.name for each in (OURS, BY_HAND, STARLETTE, FASTAPI, QUART, LITESTAR, BARE)}
    assert set(tables["1a."]) == everybody
    assert set(tables["1b."]) == {OURS.name, BY_HAND.name, FLOOR.name}
    assert set(tables["1b."][OURS.name]) == {"CONN_MAX_AGE=0", "persistent"}
    assert isinstance(tables["1a."][OURS.name]["anonymous"], Figure)
    assert plan.failures == []


@needs_peers
def test_accepts_and_echoes_of_all_contenders_are_measured(plan):
    table = measured(items.ITEMS[2](plan))["2."]
    assert {each.name for each in PEERS} <= set(table)
    for each in (OURS, BY_HAND):
        assert {f"{each.name}, CONN_MAX_AGE=0", f"{each.name}, persistent"} <= set(table)
    assert all(isinstance(cell, Figure) for row in table.values() for cell in row.values())
    assert plan.failures == []


@pytest.mark.skipif(servers.shutil.which("wrk") is None, reason="wrk is not installed")
def test_denials_over_the_wire_are_measured(plan, monkeypatch):
    monkeypatch.setattr(items.wire, "SERVERS", {"uvicorn": servers.SERVERS["uvicorn"]})
    table = measured(items.ITEMS[3](plan))["3."]
    assert set(table) == {f"{each.name}, uvicorn" for each in (OURS, BY_HAND, BARE)}
    assert plan.failures == []


def test_without_wrk_the_rows_say_so(plan, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (table,) = items.ITEMS[3](plan).tables
    assert {str(cell) for cells in rows(table).values() for cell in cells.values()} == {"not available"}
    assert "channels_wsdeny, uvicorn, denials: lacks wrk" in plan.absences
    assert plan.failures == []


def test_crowds_are_measured(plan, monkeypatch):
    monkeypatch.setattr(items.crowds, "_MANY", 3)
    tables = measured(items.ITEMS[4](plan))
    assert set(tables["4a."][OURS.name]) == {"1 at once", "3 at once"}
    assert set(tables["4b."]) == {OURS.name, BY_HAND.name}
    assert all(name.startswith("POOL_SIZE=") for name in tables["4c."])
    assert plan.failures == []


def test_views_are_measured(plan):
    table = measured(items.ITEMS[5](plan))["5."]
    assert len(table) == 4
    assert plan.failures == []


def test_memory_is_measured(plan, monkeypatch):
    monkeypatch.setattr(items.memory, "_QUICK_SOCKETS", 5)
    monkeypatch.setattr(items.memory, "_QUICK_DENIALS", {"nobody": 5, "guest": 5})
    tables = measured(items.ITEMS[6](plan))
    assert set(tables["6a."]) == {OURS.name, BY_HAND.name, BARE.name}
    assert set(tables["6b."]) == {"5 denials (401)", "5 denials (403)"}
    assert plan.failures == []


def test_queries_are_counted_for_each_session_engine(plan):
    table = measured(items.ITEMS[7](plan))["7."]
    assert set(table) == {OURS.name, BY_HAND.name, "Django's own request"}
    assert set(table[OURS.name]) == {"db", "cached_db", "cache", "file", "signed_cookies"}
    assert table["Django's own request"]["db"] == Figure(4, 4, 4)
    assert plan.failures == []


def test_growth_is_measured(plan, monkeypatch):
    monkeypatch.setattr(items.growth, "_SOCKETS", (0, 5))
    table = measured(items.ITEMS[8](plan))["8."]
    assert {"10 routes", "1,000 routes", "50 leaves", "20 hooks", "5 open sockets"} <= set(table)
    assert plan.failures == []


# Contenders that lie, crash or are absent.


def site(*, lie=None):
    """A site that answers rightly for `honest` handshakes, and then begins to lie."""
    count = 0

    async def application(scope, receive, send):
        nonlocal count
        count += 1
        await receive()
        if lie == "accepts, later" and count > 1:
            await send({"type": "websocket.accept"})
        elif lie == "crashes, later" and count > 1:
            os._exit(3)
        elif lie == "says nothing":
            return
        elif lie == "echoes something else":
            await send({"type": "websocket.accept"})
            while (await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": "something else"})
        else:
            await send(START if lie != "allows" else {**START, "status": 200})
            await send(BODY)

    return application


LIAR = Contender("the liar", "tests.test_benchmarks")
DENIAL = {"visitor": NOBODY, "answer": denied(401)}


def ask_liar(plan, lie, task="handshakes:Handshakes", arguments=DENIAL):
    case = Case(task, arguments, options={"lie": lie})
    return plan.take_turns([plan.worker(LIAR, {"case": case})])


def test_an_honest_contender_is_measured(plan):
    results = ask_liar(plan, None)
    assert plan.failures == []
    assert isinstance(results.cell("the liar", "case", "us"), Figure)


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        ("accepts, later", "expected 'denied 401', found 'accepted'"),
        ("says nothing", "expected 'denied 401', found 'no answer: []'"),
        ("allows", "expected 'denied 401', found 'denied 200'"),
        ("crashes, later", "crashed"),
    ],
)
def test_a_lying_contender_is_caught(plan, lie, found):
    results = ask_liar(plan, lie)
    (failure,) = plan.failures
    assert failure.startswith("the liar: ")
    assert found in failure
    assert results.cell("the liar", "case", "us") == "FAILED"
    assert results.values("the liar", "case", "us") == []


def test_an_echo_of_something_else_is_caught(plan):
    ask_liar(plan, "echoes something else", "echoes:Echoes", {"visitor": SOMEBODY})
    (failure,) = plan.failures
    assert "expected the echo 'hello'" in failure


def test_a_contender_that_is_not_installed_is_no_failure(plan):
    stranger = Contender("a stranger", "benchmarks.sites.stranger", needs=("no_such_framework",))
    results = plan.take_turns([plan.worker(stranger, {"case": Case("handshakes:Handshakes", DENIAL)})])
    assert results.cell("a stranger", "case", "us") == "not available"
    assert plan.absences == ["a stranger, case: lacks no_such_framework"]
    assert plan.failures == []


def test_a_site_that_cannot_be_imported_is_a_failure(plan):
    broken = Contender("broken", "benchmarks.sites.broken")
    plan.take_turns([plan.worker(broken, {"case": Case("handshakes:Handshakes", DENIAL)})])
    (failure,) = plan.failures
    assert "No module named 'benchmarks.sites.broken'" in failure


# Turns.


class Actor:
    """Takes turns in this process, and notes when."""

    def __init__(self, name, diary, fails_in=None):
        self.name = name
        self.diary = diary
        self.fails_in = fails_in
        self.turns = 0

    def start(self):
        self.diary.append(("start", self.name))

    def get_ready(self):
        return {}

    def turn(self, seconds):
        self.turns += 1
        self.diary.append(("turn", self.name))
        if self.turns == self.fails_in:
            raise Failed("fell ill")
        return {"case": {"us": float(self.turns)}}

    def stop(self):
        self.diary.append(("stop", self.name))


def play(diary, *actors, rounds=3, **options):
    return take_turns(actors, rounds=rounds, seconds=0, random=random.Random(3), **options)


def test_all_start_before_the_first_turn_and_stop_after_the_last():
    diary = []
    play(diary, Actor("a", diary), Actor("b", diary))
    kinds = [kind for kind, _ in diary]
    assert kinds == ["start"] * 2 + ["turn"] * 8 + ["stop"] * 2


def test_everybody_takes_one_turn_in_each_round_in_changing_order():
    diary = []
    play(diary, *(Actor(name, diary) for name in "abc"), rounds=10, warm_up=False)
    turns = [name for kind, name in diary if kind == "turn"]
    rounds = [tuple(turns[start : start + 3]) for start in range(0, len(turns), 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 1


def test_the_turn_to_warm_up_does_not_count():
    diary = []
    assert play(diary, Actor("a", diary)).values("a", "case", "us") == [2, 3, 4]


def test_who_fails_takes_no_more_turns_and_the_others_go_on():
    diary = []
    results = play(diary, Actor("a", diary, fails_in=2), Actor("b", diary))
    assert results.failures == {"a": "fell ill"}
    assert diary.count(("turn", "a")) == 2
    assert len(results.values("b", "case", "us")) == 3


# Figures, tables and targets.


def test_a_figure_is_a_median_with_what_it_lies_between():
    assert figure_of([3, 1, 2]) == Figure(2, 1, 3)
    assert str(Figure(2, 1, 3)) == "2.00 (1.00-3.00)"
    assert str(Figure(2, 2, 2)) == "2.00"
    assert figure_of([]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (0.00021, "0.00021"),
        (1.234, "1.23"),
        (51.04, "51.0"),
        (2580.4, "2,580"),
        (-12.3, "-12.3"),
    ],
)
def test_numbers_have_the_digits_that_mean_something(value, text):
    assert number(value) == text


def test_contenders_are_compared_round_by_round():
    assert compare([10, 40], [1, 2], lambda one, other: one / other) == Figure(15, 10, 20)
    assert compare([10], [], lambda one, other: one / other) is None


def test_a_table_prints_its_columns_in_line_and_its_notes_below():
    table = Table("A title", ["first", "second"], notes=["A note."])
    table.add("a row", Figure(1, 1, 1), "-")
    assert str(table).splitlines()[2] == "       first  second"
    assert str(table).splitlines()[4] == "a row   1.00       -"
    assert str(table).splitlines()[-1] == "A note."
    assert table.as_json()["rows"]["a row"] == {"first": {"median": 1, "low": 1, "high": 1}, "second": "-"}


def test_targets_stand_beside_what_was_found():
    table = table_of(
        [
            Target("fast", ">=", 30, Figure(31, 31, 31)),
            Target("small", "<=", 2, Figure(2.1, 1, 3)),
            Target("there", "<=", 2, None),
        ]
    )
    assert [cells[-1] for _, cells in table.rows] == ["met", "NOT MET", "not measured"]


@pytest.mark.parametrize(
    ("messages", "answer"),
    [
        ([START, BODY], denied(401)),
        ([START, {**BODY, "more_body": True}, BODY], denied(401)),
        ([{"type": "websocket.close"}], CLOSED),
        ([{"type": "websocket.accept"}, {"type": "websocket.close"}], ACCEPTED),
    ],
)
def test_answers_are_told_apart(messages, answer):
    assert answer_of(messages) == answer


@pytest.mark.parametrize(
    "messages",
    [[], [START], [START, {**BODY, "more_body": True}], [START, {**BODY, "body": b""}], [BODY, START]],
)
def test_half_an_answer_is_none(messages):
    assert answer_of(messages).startswith("no answer")


WRK = """
  Latency Distribution
     99%   12.10ms
  100 requests in 1.00s, 1MB read
  Socket errors: connect 0, read 3, write 0, timeout 0
  Non-2xx or 3xx responses: {denials}
Requests/sec:   99.50
"""


def test_what_wrk_prints_is_read():
    found = servers._figures(WRK.format(denials=100))
    assert found == {"per second": 99.5, "p99 ms": 12.1, "errors": 3}


def test_answers_over_the_wire_that_are_no_denials_are_caught():
    with pytest.raises(Failed, match="of 100, only 99 were denials"):
        servers._figures(WRK.format(denials=99))


# The command.


def run_command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", *map(str, arguments)])
    return command.main()


def test_the_command_prints_tables_and_writes_json(monkeypatch, tmp_path, capsys):
    assert run_command(monkeypatch, "--only", "7", "--json", tmp_path / "figures.json") == 0
    printed = capsys.readouterr().out
    assert "7. Queries of a handshake" in printed
    assert "Targets" in printed
    written = json.loads((tmp_path / "figures.json").read_text())
    assert {"date", "processor", "python", "versions", "duration", "failures"} <= set(written)
    assert [table["title"].split()[0] for table in written["tables"]] == ["7.", "Targets:"]


def test_the_command_fails_for_a_lying_contender_and_names_it(monkeypatch, capsys):
    def lies(plan):
        ask_liar(plan, "allows")
        return Report([])

    monkeypatch.setitem(items.ITEMS, 1, lies)
    assert run_command(monkeypatch, "--only", "1") == 1
    assert "FAILED the liar: wrong answer" in capsys.readouterr().err


def test_the_command_does_not_fail_for_a_figure(monkeypatch):
    monkeypatch.setitem(items.ITEMS, 1, lambda plan: Report([], [Target("fast", ">=", 30, Figure(1, 1, 1))]))
    assert run_command(monkeypatch, "--only", "1") == 0


def test_an_item_that_is_not_there_is_an_error_of_usage(monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_command(monkeypatch, "--only", "99")
    assert exit_.value.code == 2
    assert "items are numbered 1 to 8" in capsys.readouterr().err
