from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("demo_app", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="order",
            name="message_id",
            field=models.UUIDField(null=True, unique=True),
        ),
    ]
