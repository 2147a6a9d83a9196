"""An S3 server on this machine, which every S3 client of the process finds by its environment."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

BUCKET = "arrivals"


@contextmanager
def s3_server() -> Iterator[S3FileSystem]:
    """A file system on a server with one empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        S3FileSystem.clear_instance_cache()
        try:
            # What an earlier server of this process was given would still be there.
            httpx.post(f"http://{host}:{port}/moto-api/reset").raise_for_status()
            fs = S3FileSystem(use_listings_cache=False)
            fs.mkdir(BUCKET)
            yield fs
        finally:
            S3FileSystem.clear_instance_cache()
            server.stop()
