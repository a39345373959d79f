from django.urls import path
from reviews import views

urlpatterns = [
    path("", views.index, name="index"),
    path("jobs/<uuid:job_id>/", views.job, name="job"),
    path("jobs/<uuid:job_id>/again", views.resubmit, name="resubmit"),
    path("jobs/<uuid:job_id>/status", views.status, name="status"),
]
