"""A Flask app that summarises texts through Message Batches; see README.md beside it."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task
from flask import Flask, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from claude_batch_tasks import BatchJob, errors, run_batch


def celery_init_app(app: Flask) -> Celery:
    """As Flask's documentation has it; ``include`` is what brings the batch tasks into the worker."""

    class FlaskTask(Task):
        """Tasks of your own run inside the app's context; the batch tasks need none."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask, include=["claude_batch_tasks.tasks"])
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()  # so that every request's thread finds it
    app.extensions["celery"] = celery_app
    return celery_app


def create_app() -> Flask:
    app = Flask(__name__)
    redis_url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
    app.config["CELERY"] = {
        "broker_url": redis_url,
        "result_backend": redis_url,
        "broker_connection_retry_on_startup": True,
        "result_expires": 7 * 86_400,
        # Shorter in the example's test, where hours are seconds.
        "claude_batch_poll_min": float(os.environ.get("POLL_SECONDS", 5)),
        "claude_batch_retry_min": float(os.environ.get("POLL_SECONDS", 2)),
        "claude_batch_max_fallback_requests": 100,
    }
    celery_init_app(app)

    @app.get("/")
    def index() -> str:
        return render_template("index.html")

    @app.post("/summaries")
    def submit() -> tuple[str, int] | Response:
        texts = [line.strip() for line in request.form["texts"].splitlines() if line.strip()]
        try:
            result = run_batch.delay(summary_request(number, text) for number, text in enumerate(texts, 1))
        except errors.InvalidRequests as exc:
            return render_template("index.html", error=str(exc)), 400
        return redirect(url_for("job", job_id=result.id))

    @app.get("/summaries/<job_id>")
    def job(job_id: str) -> str:
        found = BatchJob(job_id)
        results = sorted(found.results(), key=lambda result: int(result.custom_id))
        return render_template("job.html", job=found.status(), results=results)

    @app.get("/summaries/<job_id>/status")
    def status(job_id: str) -> Response:
        found = BatchJob(job_id).status()
        return jsonify(
            state=found.state,
            requests=found.requests,
            done=found.done,
            polls=found.polls,
            polls_404=found.polls_404,
            next_poll_at=found.next_poll_at,
        )

    @app.errorhandler(errors.JobNotFound)
    def no_such_job(exc: errors.JobNotFound) -> tuple[str, int]:
        return render_template("index.html", error=str(exc)), 404

    @app.errorhandler(errors.StoreUnavailable)
    def store_is_away(exc: errors.StoreUnavailable) -> tuple[str, int]:
        return render_template("index.html", error=f"Nothing was handed over, please try again: {exc}"), 503

    return app


def summary_request(number: int, text: str) -> dict[str, Any]:
    """One request, as Anthropic's API spells it."""
    return {
        "custom_id": str(number),
        "params": {
            "model": "claude-haiku-4-5",
            "max_tokens": 256,
            "messages": [{"role": "user", "content": f"Summarise in one sentence: {text}"}],
        },
    }
