"""The project's Django app."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """The app of the orders."""

    name = "tests.transactions.shop"
    label = "shop"
