"""The tests. What fails in a helper of `support` is shown as in a test."""

import pytest

pytest.register_assert_rewrite("tests.support")
