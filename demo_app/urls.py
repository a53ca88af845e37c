"""The shop, and Django's admin."""

from __future__ import annotations

from django.contrib import admin
from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView

from demo_app import experiments, timeline, views

urlpatterns = [
    path("", views.catalogue, name="catalogue"),
    path("basket/", views.basket, name="basket"),
    path("basket/add/", views.add, name="add"),
    path("basket/change/", views.change, name="change"),
    path("basket/order/", views.order, name="order"),
    path("orders/", views.orders, name="orders"),
    path("orders/<str:invoice>/", views.one_order, name="one-order"),
    path("messages/<uuid:message_id>/", timeline.message, name="message"),
    path("messages/<uuid:message_id>/twice/", experiments.twice, name="twice"),
    path("messages/<uuid:message_id>/altered/", experiments.altered, name="altered"),
    path("messages/<uuid:message_id>/kill/", experiments.kill, name="kill"),
    path("admin/", admin.site.urls),
    # The admin names no icon, and browsers ask here for one.
    path("favicon.ico", RedirectView.as_view(url=static("shop/icon.svg"))),
]
