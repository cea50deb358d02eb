"""Everything that touches the world: sockets, files, the clock, signals, logging."""
