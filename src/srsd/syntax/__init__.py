"""Grammar and value types: what mail is written with."""
