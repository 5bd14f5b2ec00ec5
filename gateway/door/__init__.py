"""The S3 door: any S3 client puts photos in and reads previews out, and the hooks fire.

A process of its own (`safelight door`), so that it stays small: no S3 client library, no queue. What S3's protocol
means is decided by the pure modules of gateway.s3; here lies what reads, writes and waits.
"""
