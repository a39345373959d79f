"""Apps whose workers accept no JSON."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from celery import Celery
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from kombu import serialization as kombu_serialization

from claude_batch_tasks import errors, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.simulator import Simulator
from claude_batch_tasks.store import open_store
from tests.integration.rig import requests
from tests.integration.test_routing import ALL_STEPS, project

__all__ = ["project"]

pytestmark = [pytest.mark.workers, pytest.mark.timeout(120)]


def certify(folder: Path) -> None:
    """Make a key and its certificate."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.now(timezone.utc)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1)
    ).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    traditional = serialization.PrivateFormat.TraditionalOpenSSL
    (folder / "key").write_bytes(key.private_bytes(pem, traditional, serialization.NoEncryption()))
    (folder / "cert").write_bytes(made.public_bytes(pem))


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack", "auth"])
def test_a_jobs_messages_are_what_workers_accept(
    serializer: str, app: Celery, simulator: Simulator, project: Callable[..., Worker], tmp_path: Path
) -> None:
    conf = {"task_serializer": serializer, "accept_content": [serializer], "result_accept_content": ["json"]}
    app.conf.update(conf)
    env = {"C_FORCE_ROOT": "1"}
    try:
        if serializer == "auth":
            certify(tmp_path)
            files = {f"security_{name}": f"{tmp_path}/{name}" for name in ("key",)}
            app.conf.update(files, security_certificate=f"{tmp_path}/cert", security_cert_store=f"{tmp_path}/cert")
            app.setup_security()
            env["ROUTED_SECURITY"] = str(tmp_path)
        simulator.behave(processing_seconds=2, outcomes=ALL_STEPS)
        worker = project(conf=conf, **env)
        plain = app.signature("routed.plain").apply_async()
        result = run_batch.delay(requests("job", 10), poll_min=1.2, poll_max=1.5)
        assert plain.get(timeout=20) == "plain"
        assert result.get(timeout=60)["succeeded"] == 10
        assert "ContentDisallowed" not in worker.log.read_text()
    finally:
        kombu_serialization.enable_insecure_serializers(["json", "pickle", "yaml", "msgpack"])


def test_what_no_worker_would_take_is_refused(app: Celery) -> None:
    app.conf.update(task_serializer="json", accept_content=["pickle"])
    with pytest.raises(errors.InvalidSettings, match="neither 'json' nor task_serializer"):
        run_batch.delay(requests("job", 2))
    assert list(open_store(Settings.of(app)).jobs.job_ids()) == []
