"""A store behind TLS: reached with the right certificates, and not without."""

from __future__ import annotations

import contextlib
import datetime
import gc
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import kombu
import pytest
import redis
from celery import Celery
from celery.app import backends
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from claude_batch_tasks import transport
from claude_batch_tasks.checks import configuration, servers
from claude_batch_tasks.embedded import free_port, redis_binary
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.settings import Settings, redis_reports
from claude_batch_tasks.store import open_store, open_store_at


def certificate(folder: Path) -> Path:
    """A key and a certificate for localhost that vouches for itself, in one file."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, encoding = folder / "server.pem", serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + made.public_bytes(encoding))
    return pem


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A Redis that speaks TLS only, and asks its clients for a certificate: its URL, and the file with both."""
    folder = tmp_path_factory.mktemp("tls")
    pem, port = certificate(folder), free_port()
    tls = {
        "tls-cert-file": pem,
        "tls-key-file": pem,
        "tls-ca-cert-file": pem,
        "tls-port": port,
        "port": 0,
        "save": "''",
    }
    for binary in filter(None, (redis_binary(), shutil.which("redis-server"), shutil.which("valkey-server"))):
        options = [part for name, value in {**tls, "dir": folder}.items() for part in (f"--{name}", str(value))]
        process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            url = f"rediss://localhost:{port}/0"
            while process.poll() is None:
                with contextlib.suppress(StoreUnavailable):
                    store_of(url, ssl_ca_certs=pem, ssl_certfile=pem, ssl_keyfile=pem).jobs.read_job("none")
                    break
                time.sleep(0.05)
            else:
                continue
            yield url, pem
            return
        finally:
            process.terminate()
            process.wait(20)
    pytest.skip("no Redis-compatible server here speaks TLS")


def store_of(url: str, **query: object):  # type: ignore[no-untyped-def]
    return open_store_at(f"{url}?{'&'.join(f'{name}={value}' for name, value in query.items())}")


def test_a_store_behind_tls_is_reached_with_its_certificates(server: tuple[str, Path]) -> None:
    url, pem = server
    assert store_of(url, ssl_ca_certs=pem, ssl_certfile=pem, ssl_keyfile=pem).jobs.read_job("none") is None


@pytest.mark.parametrize("known", ["nothing", "server", "client"])
def test_and_not_where_one_end_cannot_tell_who_the_other_is(server: tuple[str, Path], known: str) -> None:
    url, pem = server
    given = {
        "nothing": {},
        "server": {"ssl_ca_certs": pem},
        "client": {"ssl_certfile": pem, "ssl_keyfile": pem},
    }[known]
    with pytest.raises(StoreUnavailable):
        store_of(url, **given).jobs.read_job("none")


def test_and_not_under_another_name(server: tuple[str, Path]) -> None:
    url, pem = server
    with pytest.raises(StoreUnavailable):
        store_of(
            url.replace("localhost", "127.0.0.1"),
            ssl_ca_certs=pem,
            ssl_certfile=pem,
            ssl_keyfile=pem,
            ssl_check_hostname="true",
        ).jobs.read_job("none")


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkeys"])
@pytest.mark.parametrize("role", ["result_backend", "broker_url"])
def test_a_store_that_defaults_to_the_apps_redis_has_its_certificates(
    server: tuple[str, Path], scheme: str, role: str
) -> None:
    url, pem = server
    given = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": str(pem), "ssl_certfile": str(pem)}
    given["ssl_keyfile"] = str(pem)
    app = Celery(set_as_current=False)
    app.conf.update({"result_backend": "disabled://", "broker_url": "memory://", role: url.replace("rediss", scheme)})
    app.conf["redis_backend_use_ssl" if role == "result_backend" else "broker_use_ssl"] = given
    assert open_store(Settings.of(app)).jobs.read_job("none") is None
    [found] = servers.find_servers(app, configuration.readable_settings(app))
    assert found.roles == ["store", role.replace("_url", "").replace("result_backend", "result back end")]
    assert found.inspect(Settings.of(app), thorough=True).product
    assert redis_reports.inspect_redis(found.url).product
    app.conf["redis_backend_use_ssl" if role == "result_backend" else "broker_use_ssl"] = None
    with pytest.raises(StoreUnavailable):
        open_store(Settings.of(app)).jobs.read_job("none")


def test_a_broker_and_a_back_end_of_valkeys_are_behind_tls(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, pem = server
    monkeypatch.setattr(kombu.transport, "TRANSPORT_ALIASES", dict(kombu.transport.TRANSPORT_ALIASES))
    monkeypatch.setattr(backends, "BACKEND_ALIASES", dict(backends.BACKEND_ALIASES))
    transport.install()
    options = f"ssl_cert_reqs=required&ssl_ca_certs={pem}&ssl_certfile={pem}&ssl_keyfile={pem}"
    given = f"{url.replace('rediss', 'valkeys')}?{options}"
    with kombu.Connection(given) as connection:
        connection.ensure_connection(max_retries=1)
        queue = connection.SimpleQueue("tls")
        queue.put({"a": 1})
        assert queue.get(timeout=5).payload == {"a": 1}
    app = Celery(broker=given, backend=given, set_as_current=False)
    app.backend.store_result("one", 3, "SUCCESS")
    assert app.AsyncResult("one").get() == 3
    gc.collect()  # a result unsubscribes when it is collected, for which its Redis must still be there
    bare = kombu.Connection(given.partition("?")[0])
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        bare.channel()
