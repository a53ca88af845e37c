"""The inbox in Django's admin: what a person sees, and may do."""

import json
import re
import uuid

import pytest
from django.db import DatabaseError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from inbox import Delivery, Reject, handler, history, process
from inbox.models import InboxEvent, InboxMessage, InboxQuarantine, State
from inbox.testing import deliver, handlers, override_inbox
from tests.unit.test_inbox_processing import make

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _site():
    with handlers():
        for group in ("billing", "mailer"):
            handler("orders.placed", group=group)(work)
        yield


def work(message):
    if message.payload == "bad":
        raise Reject("bad order")
    if message.payload == "fail":
        raise ValueError("no stock")


def send(body=b'"fine"', group="mailer", **fields):
    message = make(body, **fields)
    deliver(message, group)
    return message


def row(message, group="mailer"):
    return InboxMessage.objects.get(group_name=group, message_id=message.id)


def client(*permissions, superuser=False):
    from django.contrib.auth.models import Permission, User

    user = User.objects.create_user(
        f"u{User.objects.count()}", is_staff=True, is_superuser=superuser
    )
    names = ("view_inboxmessage", "view_inboxquarantine", *permissions)
    found = Permission.objects.filter(codename__in=names, content_type__app_label="inbox")
    assert len(found) == len(names)
    user.user_permissions.set(found)
    browser = Client()
    browser.force_login(user)
    return browser


def list_of(browser, query="", model="inboxmessage"):
    response = browser.get(reverse(f"admin:inbox_{model}_changelist") + query)
    assert response.status_code == 200, response
    return response.content.decode()


def page(browser, found):
    name = f"admin:inbox_{found._meta.model_name}_change"
    response = browser.get(reverse(name, args=[found.pk]))
    assert response.status_code == 200
    return response.content.decode()


def shown(html):
    """The message ids of the rows of a list."""
    return set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", html.partition('id="result_list"')[2]))


def retry(browser, *rows, **data):
    return browser.post(
        reverse("admin:inbox_inboxmessage_changelist"),
        {"action": "retry_now", "_selected_action": [found.pk for found in rows], **data},
        follow=True,
    )


class TestList:
    def test_a_row_says_what_a_person_needs(self):
        send(b'"bad"', key="key-7")
        html = list_of(client())
        for text in ("dead", "mailer", "orders.placed", "key-7", "Reject", "<time datetime="):
            assert text in html
        assert "fingerprint" not in html

    def test_search_takes_the_words_of_the_commands(self):
        fine, bad = send(key="1"), send(b'"bad"', key="2", topic="orders.placed")
        browser = client()
        for query, found in (
            (f"{fine.id}", [fine]),
            (f"id:{bad.id}", [bad]),
            ("topic:orders.*", [fine, bad]),
            ("topic:payments.*", []),
            ("key:2", [bad]),
            ("error:Reject", [bad]),
            ("error:Reject key:1", []),
            ("gibberish", []),
        ):
            html = list_of(browser, f"?q={query}")
            assert shown(html) == {str(message.id) for message in found}, query
        assert "Not understood" in list_of(browser, "?q=gibberish")

    def test_filters_by_state_and_group(self):
        fine, bad = send(), send(b'"bad"', group="billing")
        browser = client()
        assert shown(list_of(browser, "?state=dead")) == {str(bad.id)}
        assert shown(list_of(browser, "?group=mailer")) == {str(fine.id)}
        assert shown(list_of(browser, "?state=parked")) == set()

    @override_inbox(MAX_BODY=3)
    @pytest.mark.parametrize("model", ["inboxmessage", "inboxquarantine"])
    def test_a_page_takes_six_queries_and_fifty_rows(self, model):
        for _ in range(60):
            process(Delivery.of(make(b"{}"), "mailer"))
            process(Delivery.of(make(b"{ }}"), "mailer"))
        browser = client("retry_message")
        with CaptureQueriesContext(connection) as queries:
            html = list_of(browser, model=model)
        assert html.count('class="field-age') == 50
        assert len(queries) <= 6
        assert not any('"body"' in query["sql"] for query in queries)

    def test_a_large_table_is_not_counted_to_its_end(self):
        send()
        with CaptureQueriesContext(connection) as queries:
            list_of(client(), "?_facets=True")
        (count,) = [q["sql"] for q in queries if "COUNT(" in q["sql"] and "inbox" in q["sql"]]
        assert "LIMIT 10001" in count

    def test_nothing_can_be_added_changed_or_deleted(self):
        found = row(send())
        browser = client("retry_message", superuser=True)
        html = list_of(browser)
        assert "Add message" not in html
        assert "delete_selected" not in html
        for name, arguments in (("add", []), ("delete", [found.pk])):
            url = reverse(f"admin:inbox_inboxmessage_{name}", args=arguments)
            assert browser.get(url).status_code == 403
        url = reverse("admin:inbox_inboxmessage_change", args=[found.pk])
        assert browser.post(url, {"state": 3}).status_code == 403

    def test_without_the_permission_there_is_no_page(self):
        from django.contrib.auth.models import User

        browser = Client()
        browser.force_login(User.objects.create_user("nobody", is_staff=True))
        url = reverse("admin:inbox_inboxmessage_changelist")
        assert browser.get(url).status_code == 403
        assert Client().get(url).status_code == 302

    @pytest.mark.django_db(databases=["default", "sqlite"])
    def test_another_database_is_a_filter_and_its_links_stay_there(self):
        with override_inbox(GROUPS={"billing": {"DATABASE": "sqlite"}}):
            here, there = send(), send(b'"bad"', group="billing")
            browser = client("retry_message")
            assert shown(list_of(browser)) == {str(here.id)}
            html = list_of(browser, "?database=sqlite")
            assert shown(html) == {str(there.id)}
            link = re.search(r'href="([^"]*/change/[^"]*)"', html)[1].replace("&amp;", "&")
            assert str(there.id) in browser.get(link).content.decode()


class TestDetail:
    def test_the_timeline_is_a_list_in_order(self):
        message = send(b'"fail"')
        html = page(client(), row(message))
        steps = re.findall(r"<li><time.*?<strong>(\w+)</strong> (.*?)</li>", html)
        assert steps[0] == ("received", "")
        assert steps[1] == ("failed", "attempt 1: ValueError: no stock")
        assert steps[2][0] == "parked"

    def test_what_the_other_groups_did_is_there_too(self):
        message = send()
        deliver(message, "billing")
        assert re.search(
            r'<th scope="row">billing</th><td>processed</td>', page(client(), row(message))
        )

    def test_payload_and_headers_are_for_those_who_may_see_them(self):
        found = row(send(b'"fail"', headers={"token": "secret-header"}))
        InboxMessage.objects.filter(pk=found.pk).update(body=b'{"card": "secret-body"}')
        plain = page(client(), found)
        assert "secret" not in plain
        full = page(client("view_payload"), found)
        assert "secret-header" in full
        assert "secret-body" in full

    def test_a_body_that_is_large_or_binary_is_cut(self):
        found = row(send(b'"fail"'))
        InboxMessage.objects.filter(pk=found.pk).update(body=b"\xff" + b"x" * 200_000)
        html = page(client("view_payload"), found)
        assert "\\xff" in html
        assert len(html) < 150_000
        assert "… cut:" in html

    @pytest.mark.parametrize("model", [InboxMessage, InboxQuarantine])
    def test_what_came_from_outside_is_never_markup(self, model):
        evil, topic = "</script><img src=evil>", "</script><img/src=evil>"

        @handler(topic, group="mailer")
        def complain(message):
            raise Reject(evil)

        message = make(
            json.dumps(evil).encode(), topic=topic, key=evil, source=evil, headers={evil: evil}
        )
        deliver(message, "mailer")
        process(Delivery("mailer", {evil: evil}, evil.encode()))
        deliver(make(b'"other"', id=message.id, topic=topic), "mailer")
        browser = client("view_payload", "retry_message")
        pages = [list_of(browser, model=model._meta.model_name)]
        pages += [page(browser, found) for found in model.objects.all()]
        pages.append(retry(browser, row(message)).content.decode())
        for html in pages:
            assert not re.search("<img.src=evil", html)
            assert re.search("&lt;img.src=evil", html)

    def test_no_page_has_a_script_or_style_of_its_own(self):
        found = row(send(b'"bad"'))
        browser = client("retry_message", "view_payload")
        process(Delivery("mailer", {}, b"x"))
        for html in (
            page(browser, found),
            page(browser, InboxQuarantine.objects.get()),
            retry(browser, found).content.decode(),
        ):
            assert " style=" not in html
            assert "<style" not in html
            assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", html)
            assert "inbox/admin.css" in html


class TestRetry:
    def test_a_person_is_asked_first(self):
        found = row(send(b'"bad"'))
        html = retry(client("retry_message"), found).content.decode()
        assert "1 message will run again" in html
        assert str(found.message_id) in html
        assert row_state(found) == State.DEAD

    def test_then_it_is_due_and_recorded_twice(self):
        from django.contrib.admin.models import LogEntry

        message = send(b'"bad"')
        found = row(message)
        response = retry(client("retry_message"), found, confirmed="yes", reason="JIRA-12")
        assert "1 message is due now." in response.content.decode()
        assert row_state(found) == State.PARKED
        event = InboxEvent.objects.get(name="retried")
        assert (event.actor, event.reason) == ("u0", "JIRA-12")
        entry = LogEntry.objects.get()
        assert (entry.object_id, entry.user.username) == (str(found.pk), "u0")
        assert "JIRA-12" in entry.get_change_message()
        assert history(message.id)[0].events[-1].name == "retried"

    def test_without_its_log_entry_nothing_changes(self, monkeypatch):
        from django.contrib.admin.models import LogEntryManager

        found = row(send(b'"bad"'))

        def refuse(*args, **kwargs):
            raise DatabaseError

        monkeypatch.setattr(LogEntryManager, "log_actions", refuse)
        with pytest.raises(DatabaseError):
            retry(client("retry_message"), found, confirmed="yes")
        assert row_state(found) == State.DEAD
        assert not InboxEvent.objects.filter(name="retried").exists()

    def test_what_is_processed_is_left_alone_and_said(self):
        done, dead = row(send()), row(send(b'"bad"'))
        html = retry(client("retry_message"), done, dead, confirmed="yes").content.decode()
        assert "1 message is due now." in html
        assert "it is processed" in html
        assert row_state(done) == State.PROCESSED

    def test_who_may_only_look_has_no_button_and_no_verb(self):
        found = row(send(b'"bad"'))
        browser = client()
        assert "retry_now" not in list_of(browser)
        assert "Retry now" not in page(browser, found)
        retry(browser, found, confirmed="yes")
        assert row_state(found) == State.DEAD

    def test_the_page_of_a_message_has_the_button_when_it_helps(self):
        browser = client("retry_message")
        assert "Retry now" in page(browser, row(send(b'"bad"')))
        assert "Retry now" not in page(browser, row(send()))

    def test_more_than_a_batch_is_refused(self):
        found = row(send(b'"bad"'))
        InboxMessage.objects.bulk_create(copy(found) for _ in range(501))
        response = retry(client("retry_message"), found, select_across=1, confirmed="yes")
        assert "at most 500" in response.content.decode()
        assert not InboxMessage.objects.filter(state=State.PARKED).exists()

    def test_it_needs_the_token_of_a_form(self):
        found = row(send(b'"bad"'))
        browser = client("retry_message")
        browser.handler.enforce_csrf_checks = True
        assert retry(browser, found, confirmed="yes").status_code == 403
        assert row_state(found) == State.DEAD


class TestQuarantine:
    def test_a_conflict_has_both_fingerprints_side_by_side(self):
        first = send()
        deliver(make(b'"other"', id=first.id), "mailer")
        kept = InboxQuarantine.objects.get()
        html = page(client(), kept)
        assert bytes(kept.fingerprint).hex() in html
        assert bytes(kept.known_fingerprint).hex() in html
        assert "other" not in re.sub(r"same id, other content|with another", "", html)
        assert "&quot;other&quot;" in page(client("view_payload"), kept)

    def test_the_list_is_searched_and_filtered(self):
        process(Delivery("mailer", {}, b"no headers"))
        first = send()
        deliver(make(b'"other"', id=first.id), "mailer")
        browser = client()

        def count(query):
            return list_of(browser, query, "inboxquarantine").count('class="field-age')

        assert count("") == 2
        assert count("?reason=unreadable") == 1
        assert count(f"?q={first.id}") == 1
        assert count(f"?q={uuid.uuid4()}") == 0
        assert count("?q=topic:orders.*") == 1
        assert count("?group=billing") == 0


def row_state(found):
    return InboxMessage.objects.get(pk=found.pk).state


def copy(found):
    twin = InboxMessage.objects.get(pk=found.pk)
    twin.pk, twin.message_id = None, uuid.uuid4()
    return twin
