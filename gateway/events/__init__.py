"""Bucket events: what the storages tell us of objects that came or went behind our back, in one form.

An event is a hint, never a fact: it may be late, doubled, out of order or forged. Whoever acts on one asks the storage
first. All of it is pure: no I/O, no clock, no settings; bytes and times come in as arguments.
"""
