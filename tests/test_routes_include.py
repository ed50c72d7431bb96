"""A route around every view of an include, which itself stays as it was."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
from django.contrib import admin
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
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
    return HttpResponse(json.dumps([args, kwargs, match.view_name, match.route]))


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
def module():
    """A URLconf module."""
    module = ModuleType("routed_urls")
    module.app_name = "shop"
    module.urlpatterns = [path("a/", view, name="a")]
    sys.modules["routed_urls"] = module
    yield module
    del sys.modules["routed_urls"]


def is_timed(url):
    response = Client().get(url)
    assert response.status_code == 200
    return "X-Response-Time" in response


def told(url):
    return json.loads(Client().get(url).content)


def test_every_view_of_a_list_is_wrapped(urls):
    urls(path("api/", TimedRoute.include([path("a/", view), re_path("^b/$", ClassView.as_view())])))
    assert is_timed("/api/a/")
    assert is_timed("/api/b/")


def test_views_beside_it_are_not(urls):
    urls(path("api/", TimedRoute.include([path("a/", view)])), path("a/", view))
    assert not is_timed("/a/")


def test_views_of_nested_includes_are_wrapped(urls, module):
    inner = [path("c/", view), path("deeper/", include("routed_urls"))]
    urls(path("api/", TimedRoute.include([path("b/", include(inner))])))
    assert is_timed("/api/b/c/")
    assert is_timed("/api/b/deeper/a/")


def test_a_module_is_included_by_its_name(urls, module):
    urls(path("api/", TimedRoute.include("routed_urls")))
    assert is_timed("/api/a/")
    assert reverse("shop:a") == "/api/a/"


def test_a_module_is_included_by_itself(urls, module):
    urls(path("api/", TimedRoute.include(module, namespace="branch")))
    assert is_timed("/api/a/")
    assert reverse("branch:a") == "/api/a/"


def test_a_module_may_grow_until_it_is_looked_at(urls, module):
    """As with Django's own include(), for modules that import one another."""
    routed = TimedRoute.include("routed_urls")
    module.urlpatterns = [*module.urlpatterns, path("late/", view)]
    urls(path("api/", routed))
    assert is_timed("/api/late/")


def test_patterns_are_included_with_the_name_of_their_app(urls):
    urls(path("api/", TimedRoute.include(([path("a/", view, name="a")], "shop"), namespace="branch")))
    assert is_timed("/api/a/")
    assert reverse("branch:a") == reverse("shop:a", current_app="branch") == "/api/a/"


def test_what_include_returned_is_included(urls):
    urls(path("api/", TimedRoute.include(include(([path("a/", view, name="a")], "shop")))))
    assert is_timed("/api/a/")
    assert reverse("shop:a") == "/api/a/"


@pytest.mark.django_db
def test_the_admin_is_included(urls, settings):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.admin"]
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]
    urls(path("admin/", TimedRoute.include(admin.site.urls)))
    response = Client().get(reverse("admin:index"))
    assert (response.status_code, response["Location"]) == (302, "/admin/login/?next=/admin/")
    assert "X-Response-Time" in response


def test_a_namespace_without_the_name_of_an_app_is_djangos_error():
    with pytest.raises(ImproperlyConfigured, match="without providing an app_name"):
        TimedRoute.include([path("a/", view)], namespace="branch")


def test_a_namespace_for_what_has_one_is_djangos_error():
    with pytest.raises(ImproperlyConfigured, match="Cannot override the namespace"):
        TimedRoute.include(([path("a/", view)], "shop", "main"), namespace="branch")


def test_what_has_no_patterns_is_djangos_error(urls):
    urls(path("api/", TimedRoute.include(42)))
    with pytest.raises(ImproperlyConfigured, match="does not appear to have any patterns"):
        Client().get("/api/")


def test_arguments_and_names_are_as_without_the_route(urls):
    inner = include(([re_path(r"^(\d+)/$", view, name="b"), path("x/", view, {"d": 1}, name="c")], "in"))
    patterns = ([path("<int:n>/", inner, {"e": 2}), path("<str:s>/a/", view, name="a")], "out")
    asked = ["/5/x/", "/z/a/", "/5/7/"]

    def answers():
        return [told(f"/api{url}") for url in asked]

    urls(path("api/", include(patterns)))
    expected = answers(), reverse("out:in:c", args=[3]), reverse("out:a", args=["z"])
    urls(path("api/", TimedRoute.include(patterns)))
    assert (answers(), reverse("out:in:c", args=[3]), reverse("out:a", args=["z"])) == expected
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


def test_the_same_patterns_may_be_included_with_and_without_a_route(urls):
    patterns = [path("in/", include([path("a/", view)]))]
    urls(path("plain/", include(patterns)), path("timed/", TimedRoute.include(patterns)))
    for _ in range(2):
        assert not is_timed("/plain/in/a/")
        assert is_timed("/timed/in/a/")


def test_translated_prefixes_are_translated(urls):
    urls(path("api/", TimedRoute.include([path(gettext_lazy("a/"), include([path("b/", view)]))])))
    assert is_timed("/api/a/b/")


def test_includes_of_routes_compose(urls):
    inner = path("in/", GzipRoute.include([path("a/", lambda request: HttpResponse(type(request).__name__))]))
    urls(path("api/", TimedRoute.include([inner])))
    assert is_timed("/api/in/a/")
    assert Client().get("/api/in/a/").content == b"GzipRequest"


def test_guarded_views_stay_guarded(urls):
    urls(path("api/", TimedRoute.include([path("a/", require(DenyAll())(view))])))
    assert Client().get("/api/a/").status_code == 403


def test_the_resolver_names_the_views(urls):
    urls(path("api/", TimedRoute.include([path("c/", ClassView.as_view())])))
    assert resolve("/api/c/")._func_path == f"{__name__}.ClassView"


def test_patterns_of_another_kind_keep_it(urls):
    class Marked(URLPattern):
        pass

    marked = path("a/", view)
    marked.__class__ = Marked
    marked.label = "kept"
    urlconf, *_ = TimedRoute.include([marked])
    (routed,) = urlconf.urlpatterns
    assert (type(routed), routed.label, type(routed.callback)) == (Marked, "kept", TimedRoute)


@pytest.mark.django_db
def test_djangos_checks_find_nothing(urls):
    urls(path("api/", Route.include([path("b/", include([path("a/", view, name="a")]))])))
    assert run_checks(tags=["urls"]) == []


@pytest.mark.django_db
def test_djangos_checks_find_what_they_found(urls):
    urls(path("api/", Route.include([path("/a/", view)])))
    assert [problem.id for problem in run_checks(tags=["urls"])] == ["urls.W002"]
