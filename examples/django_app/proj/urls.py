from django.contrib import admin
from django.urls import path
from reviews import questions, views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", views.index, name="index"),
    path("questions/", questions.questions, name="questions"),
    path("jobs/<uuid:job_id>/", views.job, name="job"),
    path("jobs/<uuid:job_id>/again", views.resubmit, name="resubmit"),
    path("jobs/<uuid:job_id>/status", views.status, name="status"),
]
