"""The caches that policies count on, wherever on the site those are."""

from __future__ import annotations

from types import ModuleType

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from django.http import HttpResponse
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import public, require
from channels_wsdeny.policies import IsAuthenticated, IsStaff, MaxConnections, Throttle

consumer = AsyncWebsocketConsumer.as_asgi()


def backend(path):
    return {"default": {"BACKEND": f"django.core.cache.backends.{path}"}}


@pytest.mark.parametrize(
    ("caches", "found"),
    [
        (backend("redis.RedisCache"), []),
        (backend("locmem.LocMemCache"), ["W013"]),
        (backend("db.DatabaseCache"), ["W012"]),
        (backend("filebased.FileBasedCache"), ["W012"]),
        (backend("dummy.DummyCache"), ["E013"]),
        (backend("nowhere.Cache"), ["E013"]),
        ({**backend("redis.RedisCache"), "other": {}}, []),
    ],
)
def test_a_cache_that_cannot_count_is_an_error_and_one_that_loses_counts_a_warning(caches, found, ids, tmp_path):
    caches = {**caches, "default": {**caches["default"], "LOCATION": str(tmp_path)}}
    app = DenyMiddlewareStack(require(IsStaff() | ~(IsAuthenticated() & Throttle("1/s")))(consumer))
    assert ids(app, CACHES=caches) == found
    assert ids(DenyMiddlewareStack(public(consumer)), CACHES=caches) == []


def test_the_cache_that_a_policy_names_is_the_one_that_is_looked_at(messages):
    app = DenyMiddlewareStack(require(MaxConnections(1, cache="other"))(consumer))
    (message,) = messages(app)
    assert (message.id, "MaxConnections(1, key='user', cache='other')" in message.msg) == ("channels_wsdeny.E013", True)


@require(Throttle("1/s"))
def throttled(request):
    return HttpResponse()


@pytest.mark.parametrize("place", ["the stack", "the site", "a view"])
def test_policies_are_found_everywhere(place, ids):
    policy = Throttle("1/s")
    app = DenyMiddlewareStack(consumer, default_policy=policy if place == "the stack" else None)
    values = {"CHANNELS_WSDENY": {"DEFAULT_POLICY": policy}} if place == "the site" else {}
    if place == "a view":
        values["ROOT_URLCONF"] = ModuleType("urlconf")
        values["ROOT_URLCONF"].urlpatterns = [path("", throttled)]
    assert ids(app, **values) == ["W013"]


@pytest.mark.parametrize(
    ("policy", "proxy", "found"),
    [
        (Throttle("1/s", key="ip"), {"USE_X_FORWARDED_HOST": True}, ["W014"]),
        (MaxConnections(1), {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")}, ["W014"]),
        (Throttle("1/s", key=lambda request: "all"), {"USE_X_FORWARDED_HOST": True}, []),
        (Throttle("1/s", key="ip"), {}, []),
        (IsStaff(), {"USE_X_FORWARDED_HOST": True}, []),
    ],
)
def test_behind_a_proxy_the_address_that_is_counted_for_may_be_the_proxy_s(policy, proxy, found, ids):
    assert ids(DenyMiddlewareStack(require(policy)(consumer)), CACHES=backend("redis.RedisCache"), **proxy) == found
