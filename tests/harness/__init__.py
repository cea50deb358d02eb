"""Real programs for tests and the demo: srsd as a process, a private Postfix, a loopback SMTP sink.

Importable as `harness` (pytest has pythonpath = tests). Nothing here but fake_resolver imports srsd: what a test
learns of it comes over a socket, from its log or from its exit status.
"""
