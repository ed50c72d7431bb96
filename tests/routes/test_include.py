"""A route around every view of an include, which itself stays as it was."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
from django.contrib import admin
from django.core.checks import run_checks
from django.http import HttpResponse
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, include, path, re_path, resolve, reverse
from django.utils.translation import gettext_lazy
from django.views import View

from channels_wsdeny.decorators import require
from channels_wsdeny.policies import DenyAll
from channels_wsdeny.routes import GzipRoute, Route, TimedRoute


def view(request, *args, **kwargs):
    match = request.resolver_match
    return HttpResponse(json.dumps([type(request).__name__, args, kwargs, match.view_name, match.route]))


class ClassView(View):
    def get(self, request):
        return HttpResponse("hello")


@pytest.fixture
def urls(settings):
    """A function that makes the root URLconf of these patterns."""
    settings.MIDDLEWARE = []

    def make(*patterns):
        settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": list(patterns)})

    return make


@pytest.fixture
def module(monkeypatch):
    module = ModuleType("routed_urls")
    module.app_name = "shop"
    module.urlpatterns = [path("a/", view, name="a")]
    monkeypatch.setitem(sys.modules, "routed_urls", module)
    return module


def is_timed(url):
    response = Client().get(url)
    assert response.status_code == 200
    return "X-Response-Time" in response


def test_every_view_is_wrapped_and_those_beside_it_are_not(urls, module):
    inner = [path("c/", view), path("deeper/", include("routed_urls"))]
    patterns = [path("a/", view), re_path("^b/$", ClassView.as_view()), path("d/", include(inner))]
    urls(path("api/", TimedRoute.include(patterns)), path("a/", view), path("plain/", include(patterns)))
    for _ in range(2):
        assert all(map(is_timed, ("/api/a/", "/api/b/", "/api/d/c/", "/api/d/deeper/a/")))
        assert not any(map(is_timed, ("/a/", "/plain/a/", "/plain/b/", "/plain/d/c/", "/plain/d/deeper/a/")))
    assert resolve("/api/b/")._func_path == f"{__name__}.ClassView"


@pytest.mark.parametrize(
    ("included", "name"),
    [
        (lambda module: ("routed_urls",), "shop:a"),
        (lambda module: (module, "branch"), "branch:a"),
        (lambda module: ((module.urlpatterns, "shop"), "branch"), "branch:a"),
        (lambda module: (include((module.urlpatterns, "shop")),), "shop:a"),
    ],
    ids=["name", "module", "patterns", "result of include"],
)
def test_whatever_django_includes_is_included_once_a_path_is_resolved(urls, module, included, name):
    urls(path("api/", TimedRoute.include(*included(module))))
    module.urlpatterns.append(path("late/", view))  # as modules that import one another do
    assert is_timed("/api/a/")
    assert is_timed("/api/late/")
    assert reverse(name) == reverse("shop:a", current_app=name[:-2]) == "/api/a/"


def test_the_admin_is_included(urls, settings):
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]
    urls(path("admin/", TimedRoute.include(admin.site.urls)))
    response = Client().get(reverse("admin:index"))
    assert (response.status_code, response["Location"]) == (302, "/admin/login/?next=/admin/")
    assert "X-Response-Time" in response


def test_arguments_and_names_are_as_without_the_route(urls):
    inner = include(([re_path(r"^(\d+)/$", view, name="b"), path("x/", view, {"d": 1}, name="c")], "in"))
    patterns = ([path("<int:n>/", inner, {"e": 2}), path("<str:s>/a/", view, name="a")], "out")

    def answers(included):
        urls(path("api/", included))
        told = [json.loads(Client().get(f"/api{url}").content)[1:] for url in ("/5/x/", "/z/a/", "/5/7/")]
        return told, reverse("out:in:c", args=[3]), reverse("out:a", args=["z"])

    assert answers(TimedRoute.include(patterns)) == answers(include(patterns))
    urls(path("api/", TimedRoute.include(patterns)))
    with pytest.raises(NoReverseMatch):
        reverse("out:in:c", args=["no number"])


def test_what_is_included_stays_as_it_was(urls):
    endpoint, deep = path("a/", view, name="a"), path("c/", view, name="c")
    nested = path("<int:n>/", include(([deep], "in")))
    patterns = [endpoint, nested]
    before = [dict(vars(pattern)) for pattern in (endpoint, deep, nested)]
    urls(path("<slug:s>/", TimedRoute.include([path("<str:t>/", include(patterns))])))
    assert is_timed("/x/y/1/c/")
    assert reverse("in:c", args=["x", "y", 1]) == "/x/y/1/c/"
    assert [dict(vars(pattern)) for pattern in (endpoint, deep, nested)] == before
    assert patterns == [endpoint, nested]
    assert endpoint.callback is deep.callback is view
    assert list(nested.pattern.converters) == ["n"]


def test_patterns_keep_their_kind_their_translations_and_their_guards(urls):
    class Marked(URLPattern):
        pass

    marked = path("a/", view)
    marked.__class__ = Marked
    marked.label = "kept"
    urlconf, *_ = TimedRoute.include([marked])
    (routed,) = urlconf.urlpatterns
    assert (type(routed), routed.label, type(routed.callback)) == (Marked, "kept", TimedRoute)
    translated = path(gettext_lazy("a/"), include([path("b/", view)]))
    guarded = path("c/", require(DenyAll())(view))
    urls(path("api/", TimedRoute.include([translated, path("in/", GzipRoute.include([marked])), guarded])))
    assert is_timed("/api/a/b/")
    assert is_timed("/api/in/a/")
    assert json.loads(Client().get("/api/in/a/").content)[0] == "GzipRequest"
    assert Client().get("/api/c/").status_code == 403


@pytest.mark.parametrize(("url", "found"), [("a/", []), ("/a/", ["urls.W002"])])
def test_djangos_checks_find_what_they_found(urls, url, found):
    urls(path("api/", Route.include([path("b/", include([path(url, view, name="a")]))])))
    assert [problem.id for problem in run_checks(tags=["urls"])] == found
