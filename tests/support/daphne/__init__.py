"""Our Daphne as its own process, applications for it, and a client of raw sockets."""
