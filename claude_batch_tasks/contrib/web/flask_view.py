"""The progress page in terms of Flask, which is imported only when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def make_blueprint(app: Callable[..., Any], protect: Callable[[Any], Any]) -> Any:
    """Return a blueprint with the pages of a WSGI application, behind a decorator of views."""
    from flask import Blueprint, Response, request

    def show_page(name: str = "") -> Any:
        return Response.from_app(app, {**request.environ, "PATH_INFO": f"/{name}"})

    blueprint = Blueprint("claude_batches", __name__)
    view = protect(show_page)
    for rule in ("/", "/<name>"):
        blueprint.add_url_rule(rule, "show_page", view, methods=["GET"])
    return blueprint
