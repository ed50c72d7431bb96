"""Nothing is accepted that the model forbids, whatever a site, its clients and its server do.

`EXAMPLES=1000000 python -m pytest -m random tests/handlers/test_properties.py` tries so many new sites, for hours.
"""

import pytest
from hypothesis import given

from tests.support.examples import amounts
from tests.support.random_handshakes import Node, Rule, Site, hold, sites

pytestmark = pytest.mark.django_db


@amounts(150, 10000)
def test_nothing_is_accepted_that_the_model_forbids(amount):
    amount(given(sites())(lambda site: hold(site)))()


def test_a_task_group_that_leaves_a_count_of_cancellations_behind_is_answered():
    nodes = (Node("stack"), Node("guards", Rule()), Node("asks again"), Node("InTask"))
    script = (("text", "plain", 0),)
    hold(Site(nodes, "consumer", script=script))


def test_a_route_that_middleware_behind_a_wrapper_changes_in_place_may_be_known_to_the_default_policy():
    in_place = Node("middleware in place", room="b")
    nodes = (Node("stack", Rule(rooms=frozenset("b"))), Node("router"), Node("Function"), in_place)
    hold(Site(nodes, "consumer"))
