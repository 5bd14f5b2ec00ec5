"""Photos that arrive without passing through us: what the storages say of them is taken in, looked up and recorded.

`gateway.events` reads the messages, purely; here lies everything with I/O: the webhook, the queues, the looking up.
"""
