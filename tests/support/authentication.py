"""Authentication classes for tests."""

from channels_wsdeny.authentication import Authentication


class ByHeader(Authentication):
    """The user of a header, which no browser adds."""

    ambient = False

    def __init__(self, users, header):
        self.users, self.header = users, header

    def authenticate(self, request):
        return self.users.get(request.headers.get(self.header))
