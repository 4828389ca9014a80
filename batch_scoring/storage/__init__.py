"""Bytes: local folders and S3 prefixes, Parquet files, shards, small JSON documents.

Start reading at `folders.py`. Knows no pipeline and no row's meaning.
"""
