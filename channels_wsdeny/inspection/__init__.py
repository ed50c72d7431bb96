"""What a site guards: the endpoints, their policies, and what one request would be answered."""
