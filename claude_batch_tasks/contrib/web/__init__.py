"""The read-only progress page of jobs, which a team mounts in its own web application, behind its own login.

>>> page = ProgressPage()
>>> page.wsgi  # for Flask and other WSGI applications
>>> page.asgi  # for FastAPI, Starlette and other ASGI applications
>>> page.django_urls(login_required)  # for Django
"""

from claude_batch_tasks.contrib.web.progress_page import ProgressPage

__all__ = ["ProgressPage"]
