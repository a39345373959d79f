"""The admin's pages of jobs: a list that is searched, a page for each job, buttons, and files of results.

The pages show ids, labels, counts and events, but no prompt and no answer: a user who may manage jobs may not be
allowed to read their content. Files of results need a permission of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from kombu.exceptions import OperationalError

from claude_batch_tasks import BatchJob, JobStatus, list_pools, list_workers
from claude_batch_tasks.contrib.django import downloads
from claude_batch_tasks.contrib.django.actions import ACTIONS, Action
from claude_batch_tasks.contrib.django.models import Job
from claude_batch_tasks.contrib.job_pages import parse_moment, read_job_page
from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.errors import BatchTasksError, JobNotFound
from claude_batch_tasks.rules import PHASES

_MEDIA = forms.Media(css={"all": ["claude_batch/admin.css"]}, js=["claude_batch/admin.js"])

#: How many batches, and entries of the history, a page of a job has.
ROWS = 100

_BROKER_AWAY = "The broker does not answer. The store has what you asked for, and a worker does it later."


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):
    """The admin of jobs; for an admin site of your own: ``site.register(Job, JobAdmin)``.

    Permissions: ``claude_batch.view_job``, ``claude_batch.cancel_job``, ``claude_batch.retry_job``,
    ``claude_batch.download_job``.
    """

    #: Whether the page of a job shows the custom_ids of failed requests, one of each type as an example.
    show_custom_ids = True

    def get_urls(self) -> list[Any]:
        def url_name(view: str) -> str:
            return f"{self.opts.app_label}_{self.opts.model_name}_{view}"

        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name=url_name("changelist")),
            path("cancel-jobs/", view(self.cancel_jobs_view), name=url_name("cancel_jobs")),
            path("<path:object_id>/history/", view(self.history_view), name=url_name("history")),
            path("<path:object_id>/change/", view(self.change_view), name=url_name("change")),
            path("<path:object_id>/<str:file>.<str:format>", view(self.download_view), name=url_name("download")),
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

    def may(self, request: HttpRequest, permission: str) -> bool:
        """Return whether the user has a permission for jobs: ``view``, ``cancel``, ``retry`` or ``download``."""
        may: bool = request.user.has_perm(f"{self.opts.app_label}.{permission}_{self.opts.model_name}")
        return may

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Job:
        """Return the job with only its id; callers that need more ask the store."""
        return Job(id=object_id)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the jobs that are searched for, the newest first, one page at a time."""
        self._check_may("view", request)
        given = {name: request.GET.get(name, "") for name in ("q", "phase", "label")}
        # ``state`` is what earlier releases called it.
        given["phase"] = given["phase"] or request.GET.get("state", "")
        before = parse_moment(request.GET.get("before"))
        context: dict[str, Any] = {"phases": PHASES, **given, "before": before < math.inf}
        context["newest"] = _format_query(given)
        # Django's template for the page of a list needs these.
        context |= {"cl": {"opts": self.opts}, "actions_on_top": True}
        context["may_cancel"] = self.may(request, "cancel")
        try:
            context["page"] = page = read_job_page(
                text=given["q"], phase=given["phase"], label=given["label"], before=before
            )
            context["older"] = page.older and _format_query({**given, "before": repr(page.older)})
            context["workers"] = list_workers()
            context["pools"] = list_pools(jobs=False)
        except BatchTasksError as exc:
            context["trouble"] = exc
        title = f"Select {self.opts.verbose_name} to view"
        return self._render_page(request, "change_list", {"title": title, **context, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a job: how far it is, its failures, its batches, and its history."""
        self._check_may("view", request)
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
                action for action in ACTIONS.values() if action.fits(status) and self.may(request, action.permission)
            ]
            context["show_custom_ids"] = self.show_custom_ids
            context["files"] = self._list_files(request, status)
        except BatchTasksError as exc:
            context["trouble"] = exc
        return self._render_page(request, "change_form", context | (extra_context or {}))

    def action_view(self, request: HttpRequest, object_id: str, action: str) -> HttpResponse:
        """Ask the user to confirm an action, and do it once it is confirmed."""
        chosen = ACTIONS[action]
        self._check_may(chosen.permission, request)
        job_id = unquote(object_id)
        to_job = HttpResponseRedirect(self._view_url("change", quote(job_id)))
        try:
            job = BatchJob(job_id)
            status = job.status()
            if not chosen.fits(status):
                text = f"Nothing was done: the job is {status.phase}."
                self.message_user(request, text, messages.WARNING)
                return to_job
            if request.method != "POST":
                return self._confirmation_page(request, chosen, status)
            choices = request.POST.getlist("choice")
            if not choices and chosen.choices(status):
                self.message_user(request, "Nothing was done: choose at least one type.", messages.WARNING)
                return to_job
            returned = chosen.do(job, choices)
        except JobNotFound as exc:
            self.message_user(request, exc, messages.ERROR)
            return HttpResponseRedirect(self._view_url("changelist"))
        except BatchTasksError as exc:
            self.message_user(request, exc, messages.ERROR)
            return to_job
        except OperationalError:
            self.message_user(request, _BROKER_AWAY, messages.WARNING)
        else:
            self.message_user(request, chosen.done(returned), messages.SUCCESS)
        self.log_change(request, self.get_object(request, job_id), f"{chosen.label}.")
        return to_job

    def cancel_jobs_view(self, request: HttpRequest) -> HttpResponse:
        """Ask the user to confirm that several jobs are to be canceled, and cancel them once it is confirmed."""
        self._check_may("cancel", request)
        chosen = request.POST if request.method == "POST" else request.GET
        to_list = HttpResponseRedirect(self._view_url("changelist"))
        try:
            job_ids = list(dict.fromkeys(chosen.getlist("job")))
            jobs = _find_open_jobs(job_ids)
            if not jobs:
                self.message_user(request, "Select jobs that have not ended.", messages.WARNING)
            elif request.method == "POST":
                self._cancel_jobs(request, [status.job_id for status in jobs])
            else:
                return self._jobs_confirmation_page(request, jobs, len(job_ids) - len(jobs))
        except BatchTasksError as exc:
            self.message_user(request, exc, messages.ERROR)
        return to_list

    def download_view(self, request: HttpRequest, object_id: str, file: str, format: str) -> Any:
        """Send a file of a job's results or failures; they hold answers."""
        self._check_may("download", request)
        if file not in downloads.FILES or format not in downloads.FORMATS:
            raise Http404
        job_id = unquote(object_id)
        try:
            response = downloads.make_download(request, job_id, file, format)
        except BatchTasksError as exc:
            self.message_user(request, exc, messages.ERROR)
            return HttpResponseRedirect(self._view_url("change", quote(job_id)))
        self.log_change(request, self.get_object(request, job_id), f"Downloaded {file} ({format}).")
        return response

    def _cancel_jobs(self, request: HttpRequest, job_ids: Sequence[str]) -> None:
        broker_answers = True
        for job_id in job_ids:
            try:
                BatchJob(job_id).cancel()
            except JobNotFound:
                continue
            except OperationalError:
                broker_answers = False
            self.log_change(request, self.get_object(request, job_id), "Cancel.")
        number = "1 job is" if len(job_ids) == 1 else f"{len(job_ids)} jobs are"
        self.message_user(request, f"{number} being canceled.", messages.SUCCESS)
        if not broker_answers:
            self.message_user(request, _BROKER_AWAY, messages.WARNING)

    def _list_files(self, request: HttpRequest, status: JobStatus) -> list[tuple[str, list[str]]]:
        if not status.done or not self.may(request, "download"):
            return []
        failed = bool(status.failures)
        return [(file, list(downloads.FORMATS)) for file in downloads.FILES if failed or file != "failures"]

    def _confirmation_page(self, request: HttpRequest, action: Action, job: JobStatus) -> HttpResponse:
        original = self.get_object(request, job.job_id)
        context = {"title": f"{action.label}?", "original": original, "action": action, "job": job}
        choices = action.choices(job)
        context |= {"consequences": action.consequences(job, choices), "choices": choices}
        return self._render_page(request, "confirmation", context)

    def _jobs_confirmation_page(self, request: HttpRequest, jobs: Sequence[JobStatus], ended: int) -> HttpResponse:
        title = "Cancel 1 job?" if len(jobs) == 1 else f"Cancel {len(jobs)} jobs?"
        context = {
            "title": title,
            "jobs": jobs,
            "ended": ended,
            "consequences": ACTIONS["cancel"].consequences(jobs[0], ()),
        }
        return self._render_page(request, "cancel_jobs", context)

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

    def _check_may(self, permission: str, request: HttpRequest) -> None:
        """Raise an error if the user may not see jobs, or may not do this with them."""
        if not self.has_view_permission(request) or not (permission == "view" or self.may(request, permission)):
            raise PermissionDenied


def _find_open_jobs(job_ids: Iterable[str]) -> list[JobStatus]:
    """Return those of the jobs that can be canceled."""
    found = []
    for job_id in job_ids:
        with suppress(JobNotFound):
            status = BatchJob(job_id).status()
            if ACTIONS["cancel"].fits(status):
                found.append(status)
    return found


def _format_query(given: Mapping[str, str]) -> str:
    return "?" + urlencode({name: value for name, value in given.items() if value})
