"""System checks: what people get wrong when they set the package up, each with an id and a remedy."""
