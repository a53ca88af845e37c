from django.db import models


class Reservation(models.Model):
    order = models.IntegerField()

    def __str__(self) -> str:
        return str(self.order)
