"""The benchmarks' machinery: every row is there, and wrong answers are caught. No figure is judged."""

import json
import os
import random
import subprocess
import sys

import pytest

from benchmarks import __main__ as command
from benchmarks import items, plots, servers
from benchmarks.answers import ACCEPTED, CLOSED, answer_of, denied
from benchmarks.cases import Case
from benchmarks.contenders import Contender
from benchmarks.figures import Figure, compare, figure_of
from benchmarks.plan import Plan, Report
from benchmarks.processes import ROOT, environment
from benchmarks.tables import Table
from benchmarks.targets import Target, table_of
from benchmarks.turns import Failed, take_turns
from benchmarks.visitors import NOBODY, SOMEBODY

START = {"type": "websocket.http.response.start", "status": 401, "headers": []}
BODY = {"type": "websocket.http.response.body", "body": b"no"}
MORE = {**BODY, "more_body": True}


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


@pytest.mark.servers
def test_without_wrk_the_rows_say_so(plan, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (table,) = items.ITEMS[3](plan).tables
    assert {str(cell) for _, cells in table.rows for cell in cells} == {"not available"}
    assert "channels_wsdeny, uvicorn, denials: lacks wrk" in plan.absences
    assert plan.failures == []


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
HANDSHAKES = Case("handshakes:Handshakes", DENIAL)


def ask(plan, contender, case):
    """The figure of a contender, and what has failed."""
    plan.failures.clear()
    results = plan.take_turns([plan.worker(contender, {"case": case})])
    return results.cell(contender.name, "case", "us"), list(plan.failures)


LIES = {
    "accepts, later": "expected 'denied 401', found 'accepted'",
    "says nothing": "expected 'denied 401', found 'no answer: []'",
    "allows": "expected 'denied 401', found 'denied 200'",
    "crashes, later": "crashed",
    "echoes something else": "expected the echo 'hello'",
}


@pytest.mark.servers
def test_an_honest_contender_is_measured_and_each_lie_is_caught(plan):
    cell, failures = ask(plan, LIAR, HANDSHAKES)
    assert isinstance(cell, Figure)
    assert failures == []
    for lie, found in LIES.items():
        echoes = Case("echoes:Echoes", {"visitor": SOMEBODY}, options={"lie": lie})
        case = Case("handshakes:Handshakes", DENIAL, options={"lie": lie})
        cell, (failure,) = ask(plan, LIAR, echoes if "echo" in lie else case)
        assert failure.startswith("the liar: ")
        assert found in failure
        assert cell == "FAILED"


@pytest.mark.servers
def test_a_contender_that_is_not_installed_is_no_failure_but_one_that_is_broken_is(plan):
    stranger = Contender("a stranger", "benchmarks.sites.stranger", needs=("no_such_framework",))
    assert ask(plan, stranger, HANDSHAKES) == ("not available", [])
    assert plan.absences == ["a stranger, case: lacks no_such_framework"]
    _, (failure,) = ask(plan, Contender("broken", "benchmarks.sites.broken"), HANDSHAKES)
    assert "No module named 'benchmarks.sites.broken'" in failure


class Actor:
    """Takes turns in this process, and notes when."""

    def __init__(self, name, diary, fails_in=None):
        self.name, self.diary, self.fails_in, self.turns = name, diary, fails_in, 0

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


def test_all_take_one_turn_in_each_round_in_changing_order_between_start_and_stop():
    diary = []
    play(diary, *(Actor(name, diary) for name in "abc"), rounds=10, warm_up=False)
    assert [kind for kind, _ in diary] == ["start"] * 3 + ["turn"] * 30 + ["stop"] * 3
    turns = "".join(name for kind, name in diary if kind == "turn")
    rounds = [turns[start : start + 3] for start in range(0, len(turns), 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 1


def test_a_contender_that_fails_takes_no_more_turns_and_the_others_go_on():
    diary = []
    results = play(diary, Actor("a", diary, fails_in=2), Actor("b", diary))
    assert results.failures == {"a": "fell ill"}
    assert diary.count(("turn", "a")) == 2
    assert len(results.values("b", "case", "us")) == 3


def test_figures_are_medians_and_are_compared_round_by_round():
    assert figure_of([3, 1, 2]) == Figure(2, 1, 3)
    assert figure_of([]) is None
    assert compare([10, 40], [1, 2], lambda one, other: one / other) == Figure(15, 10, 20)


def test_targets_stand_beside_what_was_found():
    found = {"fast": Figure(2, 1, 2), "slow": Figure(2.1, 1, 3), "not there": None}
    table = table_of([Target(name, "<=", 2, each) for name, each in found.items()])
    assert [cells[-1] for _, cells in table.rows] == ["met", "NOT MET", "not measured"]


def test_the_page_has_the_tables_and_plots_of_its_figures(tmp_path):
    docs = ROOT / "docs"
    page = (docs / "performance.md").read_text()
    figures = json.loads((docs / "benchmarks.json").read_text())
    assert f"These figures are of {figures['date'][:10]}, and of the code of that day" in page
    for content in figures["tables"]:
        assert Table.from_json(content).as_markdown() in page
        assert Table.from_json(content).as_json() == content
    plots.main(docs / "benchmarks.json", tmp_path)
    for name in plots.PLOTS:
        assert (docs / "plots" / f"{name}.svg").read_text() == (tmp_path / f"{name}.svg").read_text()
        assert f"(plots/{name}.svg)" in page


def test_answers_are_told_apart_and_half_an_answer_is_none():
    close, accept = {"type": "websocket.close"}, {"type": "websocket.accept"}
    for messages, answer in [
        ([START, BODY], denied(401)),
        ([START, MORE, BODY], denied(401)),
        ([close], CLOSED),
        ([accept, close], ACCEPTED),
    ]:
        assert answer_of(messages) == answer
    for messages in ([], [START], [START, MORE], [START, {**BODY, "body": b""}], [BODY, START]):
        assert answer_of(messages).startswith("no answer"), messages


WRK = """
  Latency Distribution
     99%   12.10ms
  100 requests in 1.00s, 1MB read
  Socket errors: connect 0, read 3, write 0, timeout 0
  Non-2xx or 3xx responses: {denials}
Requests/sec:   99.50
"""


def test_what_wrk_prints_is_read_and_answers_that_are_no_denials_are_caught():
    assert servers._figures(WRK.format(denials=100)) == {"per second": 99.5, "p99 ms": 12.1, "errors": 3}
    with pytest.raises(Failed, match="of 100, only 99 were denials"):
        servers._figures(WRK.format(denials=99))


@pytest.fixture
def run_command(monkeypatch):
    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", *map(str, arguments)])
        return command.main()

    return run_command


@pytest.mark.servers
def test_the_command_fails_for_a_wrong_answer_and_not_for_a_figure(run_command, monkeypatch, capsys):
    def lies(plan):
        plan.take_turns([plan.worker(LIAR, {"case": Case("handshakes:Handshakes", DENIAL, options={"lie": "allows"})})])
        return Report([])

    monkeypatch.setitem(items.ITEMS, 1, lies)
    assert run_command("--only", "1") == 1
    assert "FAILED the liar: wrong answer" in capsys.readouterr().err
    monkeypatch.setitem(items.ITEMS, 1, lambda plan: Report([], [Target("fast", ">=", 30, Figure(1, 1, 1))]))
    assert run_command("--only", "1") == 0


def test_an_item_that_is_not_there_is_an_error_of_usage(run_command, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_command("--only", "99")
    assert exit_.value.code == 2
    assert "items are numbered 1 to 11" in capsys.readouterr().err
