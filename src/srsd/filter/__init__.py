"""One SMTP transaction: its facts, what they amount to, and what is done about it."""
