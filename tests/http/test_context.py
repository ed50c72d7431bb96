"""The context of a request: what it keeps of decisions, and for how long."""

import pytest
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.test import RequestFactory

from channels_wsdeny.http.context import RequestContext, get_context
from channels_wsdeny.policies import AllowAny


class Slow(SessionStore):
    """While its key is looked at, another thread goes on, which calls `meanwhile`."""

    meanwhile = None

    @property
    def session_key(self):
        meanwhile, self.meanwhile = self.meanwhile, None  # It looks at the key as well.
        if meanwhile is not None:
            meanwhile()
        self.meanwhile = meanwhile
        return "key"


NOTING = {
    "objects": lambda context, policy: RequestContext.remember(context, policy, "room"),
    "passed": lambda context, policy: RequestContext.mark_passed(context, (policy,)),
    "reported": RequestContext.begin_report,
}


@pytest.mark.parametrize("name", NOTING)
def test_what_threads_note_at_the_same_time_is_kept_and_nothing_that_is_forgotten_meanwhile_comes_back(name):
    request, note, policies = RequestFactory().get("/"), NOTING[name], [AllowAny(), AllowAny(), AllowAny()]
    request.session = session = Slow()
    context = get_context(request)
    note(context, policies[0])
    session.meanwhile = lambda: note(context, policies[1])
    note(context, policies[2])
    assert {each[0] for each in getattr(context.state, name)} == {*policies}
    session.meanwhile = context.forget_decisions
    note(context, AllowAny())
    assert len(getattr(context.state, name)) == 1
