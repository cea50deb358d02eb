"""DMARC (RFC 9989): the policy records, the DNS tree walk, and the evaluation of a message."""
