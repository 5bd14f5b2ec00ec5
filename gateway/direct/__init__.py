"""Direct uploads: the client puts the bytes into the storage itself, at addresses that are made here, and then says so.

The way of one: opening (a row, and signed addresses) -> the client's own PUT, parts or form -> arrival (what lies there
is proven to be this upload's, looked at, and recorded as any photo). What nobody completes is swept. No byte of a photo
passes through the gateway but the first few.
"""
