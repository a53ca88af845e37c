from django.db import models


class Effect(models.Model):
    """Without a unique key: a second effect would be a second row."""

    number = models.IntegerField()

    def __str__(self):
        return str(self.number)
