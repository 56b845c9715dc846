"""A real S3 server on this machine, as a fixture for the modules that import it."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty folder on moto's server, which processes started meanwhile find, too."""
    server = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer(port=0)
    running.start()
    host, port = running.get_host_and_port()
    keys = {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "ENDPOINT_URL": f"http://{host}:{port}"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(f"AWS_{name}", value)
        s3fs.S3FileSystem.clear_instance_cache()
        name = f"bucket-{port}"  # the server's content is its process's, and outlives it
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}/runs"
    running.stop()
