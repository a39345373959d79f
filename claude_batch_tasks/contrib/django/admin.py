"""The admin's pages of jobs: a list, a page for each job, and the buttons that cancel or resume one.

They show ids, counts and events, but no prompt and no answer: a user who may manage jobs may not be allowed to read
their content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, get_args

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from kombu.exceptions import OperationalError

from claude_batch_tasks import BatchJob, JobStatus, list_jobs
from claude_batch_tasks.contrib.django.models import Job
from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.errors import BatchTasksError, JobNotFound
from claude_batch_tasks.records import JobState

_MEDIA = forms.Media(css={"all": ["claude_batch/admin.css"]}, js=["claude_batch/admin.js"])

#: How many jobs a page of the list has; how many batches, and entries of the history, a page of a job has.
JOBS, ROWS = 25, 100


class Action(NamedTuple):
    """A button on the page of a job, and what it does."""

    name: str
    label: str
    states: tuple[JobState, ...]
    """The states in which a job has the button."""
    do: Callable[[BatchJob], Any]
    done: str
    consequences: str


ACTIONS = {
    action.name: action
    for action in (
        Action(
            "cancel",
            "Cancel",
            ("staged", "running"),
            BatchJob.cancel,
            "Asked for the job to be canceled.",
            "What Anthropic has processed by now keeps its results and is billed; the rest ends as canceled. "
            "This cannot be taken back.",
        ),
        Action(
            "retry",
            "Retry",
            ("failed",),
            BatchJob.resume,
            "The job goes on.",
            "The job goes on where it stands, under the same id. A batch that exists is looked at and never created "
            "again; what was never sent is sent, and costs what it costs.",
        ),
    )
}


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):
    """The admin of jobs; for an admin site of your own: ``site.register(Job, JobAdmin)``.

    Permissions: ``claude_batch.view_job``, ``claude_batch.cancel_job``, ``claude_batch.retry_job``.
    """

    def get_urls(self) -> list[Any]:
        def url_name(view: str) -> str:
            return f"{self.opts.app_label}_{self.opts.model_name}_{view}"

        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name=url_name("changelist")),
            path("<path:object_id>/history/", view(self.history_view), name=url_name("history")),
            path("<path:object_id>/change/", view(self.change_view), name=url_name("change")),
            *(
                path(f"<path:object_id>/{action}/", view(self.action_view), {"action": action}, name=url_name(action))
                for action in ACTIONS
            ),
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def may(self, request: HttpRequest, action: str) -> bool:
        """Return whether the user may press that button."""
        may: bool = request.user.has_perm(f"{self.opts.app_label}.{action}_{self.opts.model_name}")
        return may

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Job:
        """Return the job with only its id; callers that need more ask the store."""
        return Job(id=object_id)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the jobs, the newest first, one page at a time."""
        self._check_may_view(request)
        states = get_args(JobState)
        state = request.GET.get("state")
        before = _parse_moment(request.GET.get("before"))
        context: dict[str, Any] = {"states": states, "state": state if state in states else None, "before": before}
        # Django's template for the page of a list needs these.
        context |= {"cl": {"opts": self.opts}, "actions_on_top": True}
        try:
            chosen = None if context["state"] is None else (context["state"],)
            jobs = list(list_jobs(states=chosen, before=before, limit=JOBS + 1))
            # A microsecond more, since the store keeps a job's time more exactly than that.
            older = jobs[JOBS].submitted_at + timedelta(microseconds=1) if len(jobs) > JOBS else None
            context |= {"jobs": jobs[:JOBS], "older": older and older.timestamp()}
        except BatchTasksError as exc:
            context["trouble"] = exc
        title = f"Select {self.opts.verbose_name} to view"
        return self._render_page(request, "change_list", {"title": title, **context, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a job: how far it is, its batches, and its history."""
        self._check_may_view(request)
        job_id = unquote(object_id)
        context: dict[str, Any] = {
            "title": "View job",
            "subtitle": job_id,
            "original": self.get_object(request, job_id),
        }
        try:
            job = BatchJob(job_id)
            status = job.status()
            batches = Paginator(status.batches, ROWS).get_page(request.GET.get("batches"))
            history = Paginator(job.history()[::-1], ROWS).get_page(request.GET.get("history"))
            context |= {"job": status, "batches": batches, "history": history, "app": configured_app().main}
            context["actions"] = [
                action
                for action in ACTIONS.values()
                if status.state in action.states and self.may(request, action.name)
            ]
        except BatchTasksError as exc:
            context["trouble"] = exc
        return self._render_page(request, "change_form", context | (extra_context or {}))

    def action_view(self, request: HttpRequest, object_id: str, action: str) -> HttpResponse:
        """Ask the user to confirm an action, and do it once it is confirmed."""
        if not self.may(request, action):
            raise PermissionDenied
        self._check_may_view(request)
        job_id, chosen = unquote(object_id), ACTIONS[action]
        to_job = HttpResponseRedirect(self._view_url("change", quote(job_id)))
        try:
            job = BatchJob(job_id)
            status = job.status()
            if status.state not in chosen.states:
                text = f"Nothing was done: the job is {status.state}."
                self.message_user(request, text, messages.WARNING)
                return to_job
            if request.method != "POST":
                return self._confirmation_page(request, chosen, status)
            chosen.do(job)
        except JobNotFound as exc:
            self.message_user(request, exc, messages.ERROR)
            return HttpResponseRedirect(self._view_url("changelist"))
        except BatchTasksError as exc:
            self.message_user(request, exc, messages.ERROR)
            return to_job
        except OperationalError:
            text = "The broker does not answer. What you asked for is noted in the store, and done at the next look."
            self.message_user(request, text, messages.WARNING)
        else:
            self.message_user(request, chosen.done, messages.SUCCESS)
        self.log_change(request, self.get_object(request, job_id), f"{chosen.label}.")
        return to_job

    def _confirmation_page(self, request: HttpRequest, action: Action, job: JobStatus) -> HttpResponse:
        original = self.get_object(request, job.job_id)
        context = {"title": f"{action.label} job?", "original": original, "action": action, "job": job}
        return self._render_page(request, "confirmation", context)

    def _render_page(self, request: HttpRequest, name: str, context: Mapping[str, Any]) -> HttpResponse:
        """Return a page, or only the part of it that changes, if the browser asks for that (``live``)."""
        request.current_app = self.admin_site.name
        names = [f"{name}_live", name] if "live" in request.GET else [name]
        own = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "has_view_permission": True,
            "media": _MEDIA,
            **context,
        }
        return TemplateResponse(request, [f"admin/claude_batch/job/{each}.html" for each in names], own)

    def _view_url(self, view: str, *args: str) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{view}"
        return str(reverse(name, args=args, current_app=self.admin_site.name))

    def _check_may_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


def _parse_moment(seconds: str | None) -> datetime | None:
    """Return the point in time of epoch seconds in an address; None if they are not valid."""
    try:
        return datetime.fromtimestamp(float(seconds or ""), timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
