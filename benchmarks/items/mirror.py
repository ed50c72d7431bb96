"""Item 5: hooks around a Django view, against plain middlewares that do the same."""

from __future__ import annotations

from operator import sub, truediv
from typing import TYPE_CHECKING

from benchmarks.cases import Case
from benchmarks.contenders import Contender
from benchmarks.figures import compare
from benchmarks.plan import Report
from benchmarks.tables import Table
from benchmarks.targets import Target

if TYPE_CHECKING:
    from benchmarks.figures import Figure
    from benchmarks.plan import Plan
    from benchmarks.turns import Results

_VIEWS = "benchmarks.sites.views"
_SITE = Contender("Django", "benchmarks.sites.views")
_NEEDS = ("channels_wsdeny:Hooks", "channels_wsdeny.middleware:MirrorMiddleware")
_BARE, _OURS = "the bare view", "MirrorMiddleware, five hooks"
_FUNCTIONS, _CLASSES = "five middlewares, functions", "five middlewares, MiddlewareMixin"
_PLAIN = (_FUNCTIONS, _CLASSES)
_SETTINGS = {
    _BARE: {"MIDDLEWARE": []},
    _OURS: {
        "MIDDLEWARE": ["channels_wsdeny.middleware.MirrorMiddleware"],
        "CHANNELS_WSDENY": {"HOOKS": ["benchmarks.sites.mirror.hooks"]},
    },
    _FUNCTIONS: {
        "MIDDLEWARE": [f"{_VIEWS}.{each}" for each in ("note", "add_one", "add_two", "add_three", "add_four")]
    },
    _CLASSES: {"MIDDLEWARE": [f"{_VIEWS}.{each}" for each in ("Note", "AddOne", "AddTwo", "AddThree", "AddFour")]},
}
_DOORS = {"sync": "sync view, WSGI", "async": "async view, ASGI"}
_HEADERS = {"X-One": "yes", "X-Two": "yes", "X-Three": "yes", "X-Four": "yes"}


def run(plan: Plan) -> Report:
    """The same view in four settings, through both doors."""
    results = plan.take_turns(
        [plan.worker(_SITE, _cases(name), name=name, settings=settings) for name, settings in _SETTINGS.items()]
    )
    table = Table(
        "5. A Django view through the whole handler: microseconds a request",
        [column for door in _DOORS.values() for column in (door, f"{door}, added")],
        notes=["Added: to the bare view. One of the five notes something on the request, the others add a header."],
    )
    for name in _SETTINGS:
        table.add(name, *(cell for door in _DOORS for cell in _cells(results, name, door)))
    return Report([table], [_target(results, plain, door) for plain in _PLAIN for door in _DOORS])


def _cells(results: Results, name: str, door: str) -> tuple[Figure | str, Figure | str]:
    request, bare = (results.values(each, door, "us") for each in (name, _BARE))
    added = None if name == _BARE else compare(request, bare, sub)
    return results.cell(name, door, "us"), added or "-"


def _target(results: Results, plain: str, door: str) -> Target:
    ours, others = (results.values(name, door, "us") for name in (_OURS, plain))
    return Target(f"{_OURS} / {plain}, {_DOORS[door]}", "<=", 0.7, compare(ours, others, truediv))


def _cases(name: str) -> dict[str, Case]:
    headers = {} if name == _BARE else _HEADERS
    needs = _NEEDS if name == _OURS else ()
    return {
        "sync": Case("requests:WSGIRequests", {"path": "/sync/", "headers": headers}, site="wsgi", needs=needs),
        "async": Case("requests:ASGIRequests", {"path": "/async/", "headers": headers}, site="asgi", needs=needs),
    }
