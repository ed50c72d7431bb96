"""The tests. What fails in a helper of `support` is shown as in a test."""

import sys

if "pytest" in sys.modules:  # else this is a process that a test has started
    sys.modules["pytest"].register_assert_rewrite("tests.support")
