import pytest

from channels_wsdeny.inspection.routes_table import report_rows


@pytest.fixture
def site(settings, use_application):
    """A function that makes an application the site's, and `urlpatterns` its URLconf."""
    settings.ASGI_APPLICATION = settings.ROOT_URLCONF = None

    def use(application=None, *urlpatterns):
        if application is not None:
            use_application(application)
        if urlpatterns:
            settings.ROOT_URLCONF = urlpatterns

    return use


@pytest.fixture
def rows_of(site, settings):
    """A function from an application and a URLconf to the rows of a site that has nothing else."""
    settings.MIDDLEWARE = []

    def find(application=None, *urlpatterns):
        site(application, *urlpatterns)
        return report_rows()

    return find
