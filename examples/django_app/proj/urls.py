from django.contrib import admin
from django.urls import path
from reviews import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", views.index, name="index"),
    path("jobs/<uuid:job_id>/", views.job, name="job"),
    path("jobs/<uuid:job_id>/again", views.resubmit, name="resubmit"),
    path("jobs/<uuid:job_id>/status", views.status, name="status"),
]
