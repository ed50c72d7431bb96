"""An app with the models that django-tenants asks for; see `tests.support.tenants.site`."""
