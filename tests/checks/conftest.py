import pytest

from channels_wsdeny.checks import check_site


@pytest.fixture
def messages(settings, use_application):
    """A function: what the checks say of the test project with this application and these settings.

    What the test project silences is about its own application.
    """

    def check(application=None, **values):
        if application is not None:
            use_application(application)
        for name, value in values.items():
            setattr(settings, name, value)
        found = check_site(app_configs=None)
        return found if application is not None else [message for message in found if not message.is_silenced()]

    return check


@pytest.fixture
def ids(messages):
    """A function: the ids of `messages`, without their prefix."""
    prefix = "channels_wsdeny."
    return lambda *args, **values: [message.id.removeprefix(prefix) for message in messages(*args, **values)]
