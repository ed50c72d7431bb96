"""The same site, once for each contender: one guarded address that echoes.

`site()` makes one that answers a visitor without a session cookie 401, one without the permission (where
there are permissions) 403, and accepts the others; `hooked()` one whose hook answers everybody 403.
`application` is what servers are given.
"""

#: The address, for routers that begin with a slash.
GUARDED = "/guarded/"
#: The name of the cookie, as Django calls it.
COOKIE = "sessionid"
#: What a member may do, and a guest may not.
PERMISSION = "auth.view_group"
