"""The command line, and everything that a start without Docker needs."""
