"""Where things are kept: rows in Postgres, bytes in S3. The only home of asyncpg and aioboto3."""
