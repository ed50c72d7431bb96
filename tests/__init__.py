"""The tests. What fails in a helper of `support` is shown as in a test.

Channels' consumers, and synchronous code in the pool, close old connections: tests that run any are marked `django_db`.
"""

import sys

if "pytest" in sys.modules:  # else this is a process that a test has started
    sys.modules["pytest"].register_assert_rewrite("tests.support")
