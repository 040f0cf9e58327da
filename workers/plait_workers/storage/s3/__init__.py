"""S3 and what speaks like it: synchronous botocore in threads, one layer of retries, every answer checked."""
