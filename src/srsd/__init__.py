"""Sender identity for a Postfix host: SRS envelope rewriting, and the milter that joins it later."""

__version__ = "0.1.0"
