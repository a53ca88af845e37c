"""The outbox in Django's admin: what a person sees, and may do."""

import re
import subprocess
import sys
import uuid
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from outbox import Draft, history, publish_many
from outbox.models import OutboxEvent, OutboxMessage, OutboxTodo, TodoState
from outbox.runtime import pages
from outbox.store import Done, Failed, Parked, selection, stores
from tests.outbox_support import ROOT, environment

pytestmark = pytest.mark.django_db

LATER = timedelta(hours=1)
EVIL = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def _site(settings):
    memory = {"BACKEND": "outbox.brokers.memory.MemoryPublisher"}
    settings.OUTBOX = settings.OUTBOX | {
        "MAX_ATTEMPTS": 20,
        "BROKERS": {"default": memory, "stream": memory},
        "ROUTES": [("s.*", "stream"), ("*", "default")],
    }


def client(*permissions, superuser=False):
    from django.contrib.auth.models import Permission, User

    name = f"u{User.objects.count()}"
    user = User.objects.create_user(name, is_staff=True, is_superuser=superuser)
    names = ("view_outboxmessage", *permissions)
    found = Permission.objects.filter(codename__in=names, content_type__app_label="outbox")
    assert len(found) == len(names)
    user.user_permissions.set(found)
    browser = Client(enforce_csrf_checks=False)
    browser.force_login(user)
    return browser


def send(*drafts):
    with transaction.atomic():
        sent = publish_many([Draft(topic, payload, key=key) for topic, key, payload in drafts])
    rows = OutboxMessage.objects.in_bulk([m.id for m in sent], field_name="id")
    return [rows[message.id] for message in sent]


def settle(outcomes):
    held = stores["default"].acquire("default", 0, 1, uuid.uuid4(), LATER)
    stores["default"].settle(held, outcomes, timedelta(0))


@pytest.fixture
def rows():
    """One message in each state, and one for another broker."""
    found = send(
        ("orders.placed", "", 0), ("orders.paid", "", 1), ("orders.sent", "k y", 2),
        ("mail", "k y", 3), ("mail", "", 4), ("s.b", "", 5),
    )  # fmt: skip
    pending, retrying, dead, parked, published, stream = found
    settle(
        {
            retrying.seq: Failed("nacked", "no room", LATER),
            dead.seq: Failed("returned", "nobody is bound", None),
            parked.seq: Parked(),
            published.seq: Done(),
        }
    )
    return {
        "pending": pending, "retrying": retrying, "dead": dead, "parked": parked,
        "published": published, "stream": stream,
    }  # fmt: skip


LIST = "admin:outbox_outboxmessage_changelist"
RETRY = "admin:outbox_outboxmessage_retry"


def listed(rows, browser=None, **query):
    """The names of the rows that a list shows."""
    answer = (browser or client()).get(reverse(LIST), query)
    assert answer.status_code == 200
    names = {row.pk: name for name, row in rows.items()}
    return [names[row.pk] for row in answer.context["cl"].result_list]


def detail(row):
    return reverse("admin:outbox_outboxmessage_change", args=[row.pk])


ALL = ["stream", "published", "parked", "dead", "retrying", "pending"]


class TestList:
    def test_newest_first_with_states_as_icon_and_text(self, rows):
        page = client().get(reverse(LIST)).content.decode()
        badges = re.findall(
            r'<span class="ob-badge ob-(\w+)"><span aria-hidden="true">(.)</span> (\w+)<', page
        )
        assert [state for _, _, state in badges] == [
            "pending", "published", "parked", "dead", "retrying", "pending",
        ]  # fmt: skip
        assert all(name == state and not icon.isalnum() for name, icon, state in badges)
        assert page.count("1/20") == 2
        assert "0/20" not in page
        assert str(rows["dead"].id)[-8:] in page
        assert page.count("<time datetime=") >= 6

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ({"state": "dead"}, ["dead"]),
            ({"state": "pending"}, ["stream", "pending"]),
            ({"state": "published"}, ["published"]),
            ({"broker": "stream"}, ["stream"]),
            ({"broker": "default", "state": "pending"}, ["pending"]),
            ({"q": "topic:orders.*"}, ["dead", "retrying", "pending"]),
            ({"q": "topic:orders.*", "state": "retrying"}, ["retrying"]),
            ({"q": 'key:"k y" topic:mail'}, ["parked"]),
            ({"q": 'key:"k y"'}, ["parked", "dead"]),
            ({"q": str(uuid.uuid4())}, []),
            ({"q": "nonsense"}, []),
            ({"q": "id:1"}, []),
            ({"q": "", "state": "nope"}, ALL),
        ],
    )
    def test_filters_and_search(self, rows, query, expected):
        assert listed(rows, **query) == expected

    def test_search_by_id(self, rows):
        row = rows["parked"]
        assert listed(rows, q=str(row.id)) == ["parked"]
        assert listed(rows, q=f"id:{row.id}") == ["parked"]
        assert listed(rows, q=f"id:{row.id}", state="dead") == []

    def test_what_is_no_search_term_is_said(self, rows):
        page = client().get(reverse(LIST), {"q": "nonsense"}).content.decode()
        assert "“nonsense” is no id" in page

    def test_a_search_looks_at_the_newest_ones_only(self, rows, monkeypatch):
        monkeypatch.setattr(selection, "RECENT", 2)
        assert listed(rows, broker="default") == ["published"]
        # What is unsent is found wherever it is.
        assert listed(rows, broker="default", state="pending") == ["pending"]

    def test_nothing_can_be_added_changed_or_deleted(self, rows):
        browser = client(superuser=True)
        for page, args in (("add", []), ("delete", [rows["dead"].pk])):
            url = reverse(f"admin:outbox_outboxmessage_{page}", args=args)
            assert browser.get(url).status_code == 403
            assert browser.post(url, {"post": "yes"}).status_code == 403
        assert browser.post(detail(rows["dead"]), {"topic": "x"}).status_code == 403
        assert "delete_selected" not in browser.get(reverse(LIST)).content.decode()
        assert OutboxMessage.objects.count() == 6

    def test_only_for_who_may_view_it(self, rows):
        from django.contrib.auth.models import User

        browser = Client()
        browser.force_login(User.objects.create_user("nobody", is_staff=True))
        assert browser.get(reverse(LIST)).status_code == 403
        assert browser.get(detail(rows["dead"])).status_code == 403


class TestCost:
    @pytest.fixture
    def _many(self):
        send(*[("t", f"k{n % 50}", n) for n in range(300)])
        settle({row.seq: Done() for row in OutboxMessage.objects.order_by("seq")[:100]})
        OutboxTodo.objects.filter(seq__gt=OutboxTodo.objects.latest("seq").seq - 100).update(
            state=TodoState.DEAD
        )

    @pytest.mark.usefixtures("_many")
    @pytest.mark.parametrize(
        "query",
        [
            {}, {"p": 3}, {"state": "dead"}, {"state": "published"}, {"broker": "default"},
            {"q": "topic:t*"}, {"q": "key:k1", "state": "dead"}, {"state": "dead", "p": 2},
        ],
    )  # fmt: skip
    def test_at_most_six_queries_a_page_however_many_rows(
        self, query, django_assert_max_num_queries
    ):
        browser = client(superuser=True)
        with django_assert_max_num_queries(6) as queries:
            answer = browser.get(reverse(LIST), query)
        assert len(answer.context["cl"].result_list) >= 2
        assert not any('"data"' in query["sql"] for query in queries.captured_queries)

    @pytest.mark.usefixtures("_many")
    def test_nothing_is_counted_beyond_a_bound(self, monkeypatch):
        monkeypatch.setattr(pages, "COUNTED", 120)
        browser = client(superuser=True)
        with CaptureQueriesContext(connection) as queries:
            answer = browser.get(reverse(LIST))
        assert answer.context["cl"].result_count == 121
        counts = [
            q["sql"] for q in queries if "COUNT(" in q["sql"] and "outbox_message" in q["sql"]
        ]
        assert len(counts) == 1
        assert "LIMIT 121" in counts[0]
        assert "ORDER BY" not in counts[0]
        assert "outbox_todo" not in counts[0]

    def test_a_detail_page(self, rows, django_assert_max_num_queries):
        browser = client(superuser=True)
        with django_assert_max_num_queries(10):
            browser.get(detail(rows["published"]))


class TestDetail:
    def test_what_happened_and_why(self, rows):
        page = client().get(detail(rows["dead"])).content.decode()
        timeline = re.search(r'<ol class="ob-timeline">(.*?)</ol>', page, re.DOTALL)[1]
        assert re.findall(r"<strong>(\w+)</strong>", timeline) == ["created", "dead"]
        assert "attempt 1: returned: nobody is bound" in timeline
        assert str(rows["dead"].id) in page
        assert "1/20" in page

    def test_payload_and_headers_need_their_permission(self):
        with transaction.atomic():
            (message,) = publish_many([Draft("t", {"secret": 1}, headers={"h": "hush"})])
        url = detail(OutboxMessage.objects.get(id=message.id))
        page = client().get(url).content.decode()
        assert "secret" not in page
        assert "hush" not in page
        assert "12 bytes" in page
        assert "application/json" in page
        assert re.search(r"\b[0-9a-f]{32}\b", page)
        page = client("view_payload").get(url).content.decode()
        assert "&quot;secret&quot;: 1" in page
        assert "&quot;h&quot;: &quot;hush&quot;" in page

    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            (b"{not json", "{not json"),
            (b'"\\ud800"', "\\ud800"),
            (b"[" * 900 + b"]" * 900, "["),
            (b"\xff", "\\xff"),
        ],
    )
    def test_whatever_a_payload_is_it_is_shown(self, body, shown):
        (row,) = send(("t", "", 1))
        OutboxMessage.objects.filter(pk=row.pk).update(body=body)
        answer = client("view_payload").get(detail(row))
        assert answer.status_code == 200
        assert shown in answer.content.decode()

    def test_what_nests_too_deeply_is_said(self):
        value = []
        for _ in range(100_000):
            value = [value]
        assert "nests too deeply" in pages.pretty(value)

    def test_a_large_payload_is_cut(self):
        (row,) = send(("t", "", "x" * 300_000))
        page = client("view_payload").get(detail(row)).content.decode()
        assert len(page) < 150_000
        assert "… cut: 300,002 characters" in page

    def test_one_that_is_gone(self):
        assert (
            client().get(reverse("admin:outbox_outboxmessage_change", args=[9])).status_code == 302
        )


class TestEscaping:
    def test_nothing_that_is_stored_becomes_markup(self):
        """S13: whatever a field holds, on each of the pages."""
        with transaction.atomic():
            publish_many([Draft("t", {EVIL: EVIL}, key=EVIL, headers={"h": EVIL})])
        row = OutboxMessage.objects.get()
        OutboxMessage.objects.update(topic=EVIL, source=EVIL, content_type=EVIL)
        settle({row.seq: Failed(EVIL, EVIL, None)})
        browser = client(superuser=True)
        retried = {"seq": row.seq, "confirmed": "1", "reason": EVIL}
        answers = [
            browser.get(reverse(LIST)),
            browser.get(reverse(LIST), {"q": EVIL}),
            browser.post(reverse(RETRY), {"seq": row.seq}),
            browser.post(reverse(RETRY), retried, follow=True),
            browser.get(detail(row)),
            browser.get(reverse("admin:outbox_outboxmessage_history", args=[row.pk])),
        ]
        for answer in answers:
            assert answer.status_code == 200
            assert "<img src=x" not in answer.content.decode()
            assert "&lt;img" in answer.content.decode() or answer is answers[3]

    def test_no_inline_style_and_no_inline_script_of_ours(self, rows):
        browser = client(superuser=True)
        for answer in (
            browser.get(reverse(LIST)),
            browser.get(detail(rows["dead"])),
            browser.post(reverse(RETRY), {"seq": rows["dead"].seq}),
        ):
            page = answer.content.decode()
            assert "style=" not in page
            assert "<style" not in page
            assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", page)
            assert not re.search(r"\son\w+=", page)


class TestPermission:
    def test_no_lookup_but_the_filters_tells_what_is_hidden(self, rows):
        answer = client().get(reverse(LIST) + "?headers__icontains=a")
        assert answer.status_code == 400

    def test_who_may_retry_and_not_view_sees_no_message(self, rows):
        from django.contrib.auth.models import Permission, User

        browser = client("retry_message")
        User.objects.get().user_permissions.remove(
            Permission.objects.get(codename="view_outboxmessage")
        )
        assert browser.post(reverse(RETRY), {"seq": rows["dead"].seq}).status_code == 403

    def test_a_number_beyond_every_position_is_no_message(self, rows):
        answer = client("retry_message").post(reverse(RETRY), {"seq": "9" * 30})
        assert answer.status_code in (200, 302)


class TestRetry:
    def confirm(self, browser, *rows, **more):
        seqs = [row.seq for row in rows]
        return browser.post(reverse(RETRY), {"seq": seqs, "confirmed": "1", **more}, follow=True)

    def test_the_action_asks_first(self, rows):
        browser = client("retry_message")
        chosen = [rows["dead"].pk, rows["retrying"].pk]
        answer = browser.post(reverse(LIST), {"action": "retry_now", "_selected_action": chosen})
        page = answer.content.decode()
        assert "2 messages become due now" in page
        assert sorted(map(int, re.findall(r'name="seq" value="(\d+)"', page))) == sorted(chosen)
        assert history(rows["dead"].id).state == "dead"

    def test_confirmed_it_is_done_and_recorded_in_both_logs(self, rows):
        from django.contrib.admin.models import LogEntry

        browser = client("retry_message")
        answer = self.confirm(browser, rows["dead"], rows["parked"], reason="JIRA-12")
        page = answer.content.decode()
        assert "Retried 1. Skipped: 1 waits behind an earlier message of its key." in page
        assert history(rows["dead"].id).state == "retrying"
        event = OutboxEvent.objects.get(name="retried")
        entry = LogEntry.objects.get()
        assert (event.seq, event.reason) == (rows["dead"].seq, "JIRA-12")
        assert event.actor == entry.user.get_username()
        assert (entry.object_id, entry.change_message) == (str(rows["dead"].pk), "Retried. JIRA-12")

    def test_no_change_without_its_log_entry(self, rows, monkeypatch):
        """G17"""

        def fail(*_args, **_kwargs):
            raise ZeroDivisionError

        browser = client("retry_message")
        monkeypatch.setattr("django.contrib.admin.models.LogEntryManager.log_actions", fail)
        with pytest.raises(ZeroDivisionError):
            self.confirm(browser, rows["dead"])
        assert history(rows["dead"].id).state == "dead"
        assert not OutboxEvent.objects.filter(name="retried").exists()

    @pytest.mark.parametrize(
        ("name", "there"),
        [("dead", True), ("retrying", True), ("parked", False), ("published", False),
         ("pending", False)],
    )  # fmt: skip
    def test_the_button_of_a_message(self, rows, name, there):
        browser = client("retry_message")
        page = browser.get(detail(rows[name])).content.decode()
        assert (f'action="{reverse(RETRY)}"' in page) == there

    def test_who_may_only_view_sees_no_button_and_is_refused(self, rows):
        browser = client("view_payload")
        assert "retry_now" not in browser.get(reverse(LIST)).content.decode()
        assert reverse(RETRY) not in browser.get(detail(rows["dead"])).content.decode()
        assert self.confirm(browser, rows["dead"]).status_code == 403
        assert browser.post(reverse(RETRY), {"seq": rows["dead"].seq}).status_code == 403
        browser.post(reverse(LIST), {"action": "retry_now", "_selected_action": [rows["dead"].pk]})
        assert history(rows["dead"].id).state == "dead"

    def test_a_get_changes_nothing_and_a_post_needs_its_token(self, rows):
        browser = client("retry_message")
        assert browser.get(reverse(RETRY), {"confirmed": 1}).status_code == 405
        browser.handler.enforce_csrf_checks = True
        assert self.confirm(browser, rows["dead"]).status_code == 403
        assert history(rows["dead"].id).state == "dead"

    def test_too_many_are_left_to_the_command(self, rows, monkeypatch):
        monkeypatch.setattr("outbox.admin.INLINE", 1)
        browser = client("retry_message")
        answer = self.confirm(browser, rows["dead"], rows["retrying"])
        assert "use the command outbox_retry" in answer.content.decode()
        assert history(rows["dead"].id).state == "dead"

    def test_nonsense_is_nothing(self, rows):
        browser = client("retry_message")
        answer = browser.post(reverse(RETRY), {"seq": ["x", "-1"], "confirmed": 1}, follow=True)
        assert answer.status_code == 200
        assert not OutboxEvent.objects.filter(name="retried").exists()


WITHOUT = """
import sys
from django.apps import apps
from django.core.management import call_command
assert not apps.is_installed("django.contrib.admin")
call_command("check")
import outbox.store, outbox.relay, outbox.operations
assert not [name for name in sys.modules if name.startswith("django.contrib.admin")]
print("works")
"""


def test_a_project_without_the_admin_works():
    code = (
        "import django; from django.conf import settings;"
        "settings.configure(INSTALLED_APPS=['outbox'], OUTBOX={'SOURCE': '/s', 'BROKERS':"
        "{'default': {'BACKEND': 'outbox.brokers.memory.MemoryPublisher'}}}); django.setup()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + WITHOUT],
        cwd=ROOT,
        env=environment(DJANGO_SETTINGS_MODULE=""),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "works" in done.stdout, done.stderr
