"""Authentication-Results (RFC 8601): the field's one writer, its reader, and the eye for forged ones."""

from srsd.authres.forged import claims, is_authentication_results
from srsd.authres.parse import AuthenticationResults, parse_results
from srsd.authres.result import Result
from srsd.authres.write import format_results

__all__ = [
    "AuthenticationResults",
    "Result",
    "claims",
    "format_results",
    "is_authentication_results",
    "parse_results",
]
