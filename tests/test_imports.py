"""What users import, and what importing it needs."""

import pytest

import channels_wsdeny
from tests.support.processes import run_python

WITHOUT_AUTH = """
import asyncio, sys, types
from django.conf import settings
sys.modules["urls"] = types.SimpleNamespace(urlpatterns=[])
settings.configure(INSTALLED_APPS=["channels_wsdeny"], ROOT_URLCONF="urls", LOGGING_CONFIG=None)
import django
django.setup()
from django.core.checks import run_checks
from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import public, require
from channels_wsdeny.policies import HasPermission, IsStaff, UserPassesTest
from tests.support.clients import cookie_header, knock
from tests.support.scripted import Script, accept

async def main():
    anonymous = UserPassesTest(lambda user: user.is_anonymous and not user.get_username())
    for headers in ([], cookie_header(sessionid="a" * 32)):
        for guard in (public, require(anonymous), lambda app: app, require(IsStaff() | HasPermission("a.b"))):
            site = guard(Script(accept()))
            print((await knock(DenyMiddlewareStack(site), "/", headers=headers)).status, end=" ")

print([check.msg for check in run_checks()])
asyncio.run(main())
"""

WITHOUT_DAPHNE = ["daphne", "twisted", "autobahn"]


@pytest.mark.servers
def test_what_users_import_needs_neither_settings_nor_daphne():
    assert "daphne is not installed" in run_python("import daphne", without=WITHOUT_DAPHNE)[1]
    modules = [f"channels_wsdeny{name}" for name in ("", ".policies", ".decorators", ".routes", ".testing")]
    code = f"import {', '.join(modules)}\nfrom django.conf import settings\nprint(settings.configured)"
    assert run_python(code, without=WITHOUT_DAPHNE) == ("False", "")


@pytest.mark.servers
def test_a_stack_in_an_asgi_file_that_does_not_set_django_up_says_how_to():
    code = """
from django.conf import settings
settings.configure()
import asyncio
from channels_wsdeny import DenyMiddlewareStack
asyncio.run(DenyMiddlewareStack(print)({"type": "websocket"}, None, None))
"""
    assert "Call get_asgi_application() in asgi.py, before it" in run_python(code)[1]


@pytest.mark.servers
def test_a_site_without_daphne_starts():
    code = """
from django.conf import settings
settings.configure(INSTALLED_APPS=["channels_wsdeny"])
import django; django.setup()
from django.core import checks
print(checks.run_checks())
"""
    assert run_python(code, without=WITHOUT_DAPHNE) == ("[]", "")


def test_the_package_exports_what_it_says():
    assert [name for name in channels_wsdeny.__all__ if not hasattr(channels_wsdeny, name)] == []
    with pytest.raises(AttributeError, match="'channels_wsdeny' has no attribute 'nothing'"):
        _ = channels_wsdeny.nothing


@pytest.mark.servers
def test_a_site_without_users_and_sessions_needs_neither_where_no_policy_asks_for_them():
    printed, errors = run_python(WITHOUT_AUTH)
    assert printed.splitlines()[-1] == "101 101 401 401 101 101 401 401", errors


@pytest.mark.servers
@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ([], "'channels_wsdeny' is not in INSTALLED_APPS"),
        (["daphne", "channels_wsdeny"], "'daphne' is before 'channels_wsdeny' in INSTALLED_APPS"),
    ],
)
def test_a_stack_whose_app_is_not_found_says_so_once(installed, said):
    printed, errors = run_python(WITHOUT_AUTH.replace('["channels_wsdeny"]', repr(installed)))
    assert errors.count(said) == 1, (printed, errors)
