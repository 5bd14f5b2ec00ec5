"""The S3 front door. Its pure parts lie here: who signed a request, what it asks for, what its body really is.

No module but the door itself does I/O or reads a clock: bytes and times come in as arguments.
"""
