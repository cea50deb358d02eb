"""Wire protocols as pure functions: octets in, requests out, octets back."""
