"""Tasks: what a contender does in its process, one module each.

A task is made with a function that makes the site; its `verify()` raises `Wrong` unless the site answers
as it should, and its `turn(seconds)` works for about so long and returns what it measured, by name.
Either may be a coroutine function.
"""
