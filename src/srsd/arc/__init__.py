"""ARC (RFC 8617): validating an Authenticated Received Chain, extending it, and whom to believe.

Nothing but the composition of the filter imports this package: without it a message has no `arc` result.
"""
