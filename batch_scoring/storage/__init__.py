"""Storage: local folders and S3 prefixes, Parquet files, shards, Delta tables, small JSON documents.

Start reading at `folders/folder.py`. Nothing here depends on a pipeline or on the meaning of rows.
"""
