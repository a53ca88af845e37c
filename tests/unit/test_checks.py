"""`manage.py check`: each id can be produced, says what to change, and is explained in the docs."""

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.checks import Tags, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper as PostgreSQL
from django.test import override_settings

import inbox
import outbox
from inbox import registry
from inbox.testing import handlers
from outbox.conf import broker_from_url, get_settings
from outbox.runtime import checks
from outbox.store.base import Store
from outbox.store.postgresql import PostgreSQLStore
from tests.outbox_support import ROOT, environment

MEMORY = {"BACKEND": "outbox.brokers.memory.MemoryPublisher"}
KAFKA = {"BACKEND": "outbox.brokers.kafka.KafkaPublisher", "URL": "kafka://127.0.0.1:9092"}
RABBIT = {"BACKEND": "inbox.brokers.rabbitmq.RabbitMQConsumer", "URL": "amqp://127.0.0.1"}


@pytest.fixture(autouse=True)
def no_handlers():
    registered = registry.swap({})
    yield
    registry.swap(registered)


class NoInbox:
    """A router that keeps the inbox from the second database."""

    def allow_migrate(self, db, app_label, **_hints):
        return None if db == "default" or app_label != "inbox" else False


def publishers(**brokers):
    return {"OUTBOX": {"SOURCE": "/shop", "BROKERS": {"default": MEMORY} | brokers}}


def outbox_with(**keys):
    return {"OUTBOX": {"SOURCE": "/shop", "BROKERS": {"default": MEMORY}} | keys}


def kafka_with(**options):
    return publishers(stream=KAFKA | {"OPTIONS": options})


def consumers(**brokers):
    return {"INBOX": {"BROKERS": brokers}}


def group_in(database):
    return {"INBOX": {"GROUPS": {"warehouse": {"DATABASE": database}}}}


CASES = [
    ("outbox.E001", {"OUTBOX": None}, "The setting OUTBOX is missing", "See docs"),
    ("outbox.E001", {"OUTBOX": {"SOURCE": "/shop"}}, "OUTBOX['BROKERS'] is required", "BACKEND"),
    (
        "outbox.E001",
        {"OUTBOX": {"SOURCE": "/shop", "BROKERS": {"stream": MEMORY}}},
        "BROKERS must have an entry 'default'",
        "",
    ),
    (
        "outbox.E001",
        publishers(stream={"BACKEND": "outbox.brokers.kafkaa.KafkaPublisher"}),
        "OUTBOX['BROKERS']['stream']['BACKEND'] 'outbox.brokers.kafkaa.KafkaPublisher' cannot be",
        "",
    ),
    (
        "outbox.E001",
        publishers(stream={"BACKEND": "outbox.wire.Message"}),
        "is no subclass of outbox.brokers.Publisher",
        "",
    ),
    (
        "outbox.E001",
        publishers(stream={"BACKEND": "outbox.brokers.rabbitmq.RabbitMQPublisher", "URL": "x"}),
        "OUTBOX['BROKERS']['stream']['URL'] must look like amqp://",
        "",
    ),
    (
        "outbox.E002",
        outbox_with(BATCHSIZE=1),
        "OUTBOX['BATCHSIZE'] is not a setting.",
        "Did you mean 'BATCH_SIZE'?",
    ),
    ("outbox.E002", outbox_with(LEASE=15), "OUTBOX['LEASE'] must be of type timedelta", ""),
    ("outbox.E002", outbox_with(LANES=0), "OUTBOX: LANES must be 1 to 64", ""),
    (
        "outbox.E002",
        publishers(stream=MEMORY | {"OPTIONS": {"nmae": "x"}}),
        "OUTBOX['BROKERS']['stream']['OPTIONS']['nmae'] is not an option",
        "Did you mean 'name'?",
    ),
    (
        "outbox.E003",
        outbox_with(ROUTES=[("orders.*", "defualt")]),
        "sends 'orders.*' to 'defualt'",
        "Did you mean 'default'?",
    ),
    (
        "outbox.E004",
        {"OUTBOX": {"BROKERS": {"default": MEMORY}}},
        "OUTBOX['SOURCE'] is required",
        '"SOURCE": "/shop"',
    ),
    ("outbox.E004", outbox_with(SOURCE="our shop"), "URI reference", ""),
    (
        "outbox.E010",
        outbox_with(LEASE=timedelta(seconds=10)),
        "LEASE (0:00:10) must exceed CONFIRM_TIMEOUT (0:00:10)",
        "Raise OUTBOX['LEASE']",
    ),
    (
        "outbox.E010",
        kafka_with(**{"message.timeout.ms": 15_000}),
        "less than LEASE (15000 ms), not 15000",
        "12000",
    ),
    ("outbox.W002", outbox_with(REQUIRE_TRANSACTION=False), "commits its message", "ATOMIC"),
    ("outbox.W005", kafka_with(acks=1), "OUTBOX['BROKERS']['stream']", "Remove 'acks'"),
    ("outbox.W005", kafka_with(**{"request.required.acks": "0"}), "acks=all", ""),
    ("outbox.W005", kafka_with(**{"enable.idempotence": "false"}), "idempotence", ""),
    ("outbox.W008", {"USE_TZ": False}, "USE_TZ is False", "Set USE_TZ = True"),
    (
        "outbox.W010",
        outbox_with(POLL=(timedelta(seconds=1), timedelta(seconds=6))),
        "wait 6 s",
        "POLL",
    ),
    (
        "inbox.E001",
        consumers(default={"BACKEND": "inbox.brokers.nowhere.Consumer"}),
        "INBOX['BROKERS']['default']['BACKEND']: could not import",
        "",
    ),
    ("inbox.E001", consumers(default=MEMORY), "is no Consumer", ""),
    (
        "inbox.E001",
        consumers(default=RABBIT) | {"INBOX": {"BROKERS": {"main": RABBIT}, "GROUPS": {"a": {}}}},
        "Group 'a' uses broker 'default'",
        "Known: main.",
    ),
    (
        "inbox.E002",
        {"INBOX": {"GROPUS": {}}},
        "INBOX['GROPUS'] is not a setting",
        "Did you mean 'GROUPS'?",
    ),
    ("inbox.E002", {"INBOX": {"GROUPS": {"a": {"PREFETCH": 0}}}}, "PREFETCH must be", ""),
    (
        "inbox.E002",
        consumers(default=RABBIT | {"OPTIONS": {"queue": "x"}}),
        "INBOX['BROKERS']['default']['OPTIONS']['queue']",
        "Did you mean",
    ),
    ("inbox.E006", group_in("sqlit"), "not in DATABASES", "Did you mean 'sqlite'?"),
    (
        "inbox.E006",
        group_in("sqlite") | {"DATABASE_ROUTERS": [NoInbox()]},
        "INBOX['GROUPS']['warehouse']['DATABASE'] is 'sqlite'",
        "DATABASE_ROUTERS",
    ),
    (
        "inbox.W003",
        consumers(default=RABBIT | {"OPTIONS": {"delivery_limit": 5}}),
        "INBOX['BROKERS']['default']['OPTIONS']['delivery_limit'] is 5",
        "Remove it",
    ),
]
BY_OTHER_TESTS = {
    "outbox.E005",
    "outbox.E014",
    "outbox.W001",
    "inbox.E003",
    "inbox.E005",
}


def found(*, deploy=False):
    """What our checks say; Django's own may ask the database."""
    return run_checks(tags=["outbox", "inbox"], include_deployment_checks=deploy)


def database_found(*databases):
    return [m for m in run_checks(tags=[Tags.database], databases=databases) if "outbox" in m.id]


@pytest.mark.parametrize(("check", "changes", "text", "hint"), CASES)
def test_a_wrong_setting_is_reported_with_id_and_hint(check, changes, text, hint):
    with override_settings(**changes):
        told = [m for m in found(deploy=True) if m.id == check]
    assert len(told) == 1
    assert text in told[0].msg
    assert hint in told[0].hint
    assert f"See docs/reference/checks.md#{check}" in told[0].hint


def test_a_group_that_celery_feeds_needs_no_broker():
    with handlers():
        registry.registrar("mail.wanted", "mailer", by_celery=True)(lambda message: None)
        entry = {"BACKEND": "inbox.brokers.memory.MemoryConsumer"}
        with override_settings(INBOX={"BROKERS": {"events": entry}}):
            assert found() == []


@pytest.mark.parametrize("number", ["E001", "E002", "E003", "E004", "E010"])
def test_commands_that_skip_the_checks_refuse_the_same(number):
    wrong = next(changes for check, changes, *_ in CASES if check == f"outbox.{number}")
    with override_settings(**wrong), pytest.raises(ImproperlyConfigured, match="OUTBOX"):
        call_command("outbox_relay", once=True)


@pytest.mark.parametrize("command", [["check"], ["outbox_relay", "--once"], ["inbox_consume"]])
def test_the_command_line_shows_a_fault_and_no_traceback(tmp_path, command):
    (tmp_path / "wrong.py").write_text(
        "from settings.local import *\nOUTBOX = OUTBOX | {'BATCHSIZE': 1}\n"
    )
    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", *command, "--settings=wrong"],
        env=environment(PYTHONPATH=f"{tmp_path}:{ROOT}", DEMO_DATABASE=str(tmp_path / "none")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "(outbox.E002) OUTBOX['BATCHSIZE'] is not a setting." in done.stderr
    assert "HINT: Did you mean 'BATCH_SIZE'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_in_order_give_no_message():
    told = found(deploy=True)
    if connections["default"].vendor == "sqlite":
        assert [message.id for message in told] == ["outbox.W001"]
    else:
        assert told == []


def test_all_faults_are_told_at_once():
    keys = {"BATCHSIZE": 1, "LANES": "8", "ROUTE": [], "BROKERS": {"default": {"ULR": "x"}}}
    with override_settings(OUTBOX=keys):
        told = found()
        with pytest.raises(ImproperlyConfigured) as caught:
            get_settings()
    assert sorted(message.id for message in told) == [
        "outbox.E001",  # BACKEND
        "outbox.E002",
        "outbox.E002",
        "outbox.E002",
        "outbox.E002",
        "outbox.E004",
    ]
    assert all(message.msg in str(caught.value) for message in told)


@pytest.mark.parametrize(
    ("module", "extra", "changes"),
    [
        ("confluent_kafka", "kafka", kafka_with()),
        ("celery", "celery", outbox_with(WAKEUP="celery")),
    ],
)
def test_an_uninstalled_client_is_reported_with_the_pip_line(monkeypatch, module, extra, changes):
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with override_settings(**changes):
        (told,) = found()
    assert told.id == "outbox.E001"
    assert f'pip install "django-outbox-inbox[{extra}]"' in told.hint


@pytest.mark.parametrize("limit", [None, -1])
def test_an_unlimited_queue_is_no_warning(limit):
    with override_settings(**consumers(default=RABBIT | {"OPTIONS": {"delivery_limit": limit}})):
        assert "inbox.W003" not in {message.id for message in found(deploy=True)}


@pytest.mark.parametrize("acks", ["all", -1, "-1"])
def test_full_acks_by_any_name_are_no_warning(acks):
    with override_settings(**kafka_with(acks=acks)):
        assert "outbox.W005" not in {message.id for message in found(deploy=True)}


def test_an_outbox_without_transactions_is_fine_where_requests_are_some(monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    with override_settings(**outbox_with(REQUIRE_TRANSACTION=False)):
        assert "outbox.W002" not in {message.id for message in found()}


def test_sqlite_in_production_is_a_warning(monkeypatch):
    monkeypatch.setattr(connections["default"], "vendor", "sqlite")
    assert [m.id for m in found(deploy=True)] == ["outbox.W001"]


class TestHandlers:
    @pytest.mark.parametrize(
        "function", [lambda: None, lambda _message, _more: None, lambda *, message: message]
    )
    def test_one_that_takes_no_message_is_an_error(self, function):
        inbox.handler("orders.placed", group="warehouse")(function)
        (told,) = found()
        assert told.id == "inbox.E003"
        assert re.search(r"'orders.placed' in group 'warehouse' at .*test_checks:\d+", told.msg)

    @pytest.mark.parametrize(
        "function", [print, str, lambda _message: None, lambda *_: None, lambda _m, _n=1: None]
    )
    def test_one_that_does_is_none(self, function):
        inbox.handler("orders.placed", group="warehouse")(function)
        assert found() == []

    def test_a_name_too_long_for_the_broker_is_an_error(self):
        inbox.handler("t" * 249, group="warehouse")(print)
        with override_settings(**consumers(default=RABBIT)):
            assert [message.id for message in found()] == ["inbox.E001"]


class TestDatabase:
    """E014, which connects."""

    @pytest.mark.django_db
    def test_the_database_of_this_run_will_do(self):
        assert database_found("default") == []

    @pytest.mark.django_db
    def test_an_old_one_is_an_error_with_both_versions(self, monkeypatch):
        for store in (Store, PostgreSQLStore):
            monkeypatch.setattr(store, "oldest", (999, 1))
        (told,) = database_found("default")
        assert told.id == "outbox.E014"
        assert re.search(r"needs (PostgreSQL|SQLite) 999\.1; 'default' is \d+\.\d+", told.msg)

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.postgres
    def test_one_that_django_refuses_is_the_same_error(self, monkeypatch):
        monkeypatch.setattr("django.db.backends.base.base.RAN_DB_VERSION_CHECK", set())
        monkeypatch.setattr(PostgreSQL.features_class, "minimum_database_version", (999,))
        # As in a process that has not connected yet.
        connections["default"].close()
        connections["default"].__dict__.pop("pg_version", None)
        (told,) = database_found("default")
        assert (told.id, "PostgreSQL 999 or later" in told.msg) == ("outbox.E014", True)

    def test_a_database_without_a_store_is_an_error(self, monkeypatch):
        monkeypatch.setattr(connections["default"], "vendor", "oracle")
        (told,) = database_found("default")
        assert (told.id, "(oracle)" in told.msg) == ("outbox.E014", True)

    def test_other_databases_are_not_asked(self):
        assert database_found("sqlite") == []
        assert database_found() == []


class TestStrangers:
    """E005."""

    def install(self, folder, direct_url=None):
        info = folder / "django_outbox_inbox-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Name: django-outbox-inbox\nVersion: 1\n")
        if direct_url:
            (info / "direct_url.json").write_text(direct_url)

    @pytest.fixture
    def path(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path

    def test_a_package_from_elsewhere_is_an_error_that_names_both_places(self, path):
        self.install(path)
        told = sorted(found(), key=lambda message: (message.id, message.msg))
        assert [message.id for message in told] == ["inbox.E005", "inbox.E005", "outbox.E005"]
        assert outbox.__file__ in told[-1].msg
        assert str(path / "outbox") in told[-1].hint

    def test_an_editable_installation_is_ours(self, path):
        home = Path(outbox.__file__).parents[1]
        url = f'{{"url": "{home.as_uri()}", "dir_info": {{"editable": true}}}}'
        self.install(path, url)
        assert found() == []

    def test_an_installation_from_a_folder_is_not_that_folder(self, path):
        home = Path(outbox.__file__).parents[1]
        self.install(path, f'{{"url": "{home.as_uri()}", "dir_info": {{}}}}')
        assert {message.id for message in found()} == {"outbox.E005", "inbox.E005"}

    def test_sources_that_are_not_installed_are_not_judged(self, monkeypatch):
        monkeypatch.setattr(checks, "_DISTRIBUTION", "not-installed-anywhere")
        assert checks.strangers("outbox", "inbox") == []

    def test_a_projects_own_app_named_outbox_is_named_when_the_inbox_starts(self, tmp_path):
        (tmp_path / "outbox").mkdir()
        (tmp_path / "outbox" / "__init__.py").touch()
        (tmp_path / "inbox").symlink_to(Path(inbox.__file__).parent)
        code = (
            "import django; from django.conf import settings;"
            "settings.configure(INSTALLED_APPS=['inbox']); django.setup()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        last = done.stderr.strip().splitlines()[-1]
        assert "(inbox.E005) 'outbox' is imported from" in last
        assert str(tmp_path / "outbox" / "__init__.py") in last


def test_each_id_in_the_code_is_produced_above_and_has_an_anchor_in_the_docs():
    produced = {check for check, *_ in CASES} | BY_OTHER_TESTS
    page = (ROOT / checks.PAGE).read_text()
    anchors = re.findall(r'<a id="([^"]+)"></a>\n\*\*([a-z]+\.[EW]\d{3}): ', page)
    assert [anchor for anchor, _ in anchors] == [title for _, title in anchors]
    assert {anchor for anchor, _ in anchors} == produced
    for package in (outbox, inbox):
        home = Path(package.__file__).parent
        used = {
            f"{package.__name__}.{number}"
            for path in home.rglob("*.py")
            if "runtime" not in path.parts
            for number in re.findall(r'"([EWI]\d{3})"', path.read_text())
        }
        assert used
        assert used <= produced


def test_checking_opens_nothing_and_imports_no_client(tmp_path):
    code = f"""
import socket, sys
def refuse(*args): raise AssertionError(f"connects: {{args}}")
socket.socket.connect = refuse
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["outbox", "inbox"], USE_TZ=True,
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{tmp_path}/none"}}}},
    OUTBOX={{"SOURCE": "/shop", "BROKERS": {{
        "default": {{"BACKEND": "outbox.brokers.rabbitmq.RabbitMQPublisher", "URL": "amqp://h"}},
        "stream": {{"BACKEND": "outbox.brokers.kafka.KafkaPublisher", "URL": "kafka://h"}},
    }}}},
    INBOX={{"BROKERS": {{
        "default": {{"BACKEND": "inbox.brokers.rabbitmq.RabbitMQConsumer", "URL": "amqp://h"}},
        "stream": {{"BACKEND": "inbox.brokers.kafka.KafkaConsumer", "URL": "kafka://h"}},
    }}}},
)
import django; django.setup()
from django.core.management import call_command
call_command("check", deploy=True, tags=["outbox", "inbox"])
print(sorted({{"kombu", "amqp", "confluent_kafka", "celery"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["[]"]), done.stderr
    assert not (tmp_path / "none").exists()


class TestBrokerFromUrl:
    @pytest.mark.parametrize(
        ("url", "entry"),
        [
            (
                "amqp://u:p%40@h:5672/v?window=2&declare=false&exchange=shop",
                {
                    "BACKEND": "outbox.brokers.rabbitmq.RabbitMQPublisher",
                    "URL": "amqp://u:p%40@h:5672/v",
                    "OPTIONS": {"window": 2, "declare": False, "exchange": "shop"},
                },
            ),
            (
                "kafka://a:1,b:2?acks=all&linger.ms=5",
                {
                    "BACKEND": "outbox.brokers.kafka.KafkaPublisher",
                    "URL": "kafka://a:1,b:2",
                    "OPTIONS": {"acks": "all", "linger.ms": 5},
                },
            ),
            (
                "console://?pretty=false",
                {
                    "BACKEND": "outbox.brokers.console.ConsolePublisher",
                    "URL": "console://",
                    "OPTIONS": {"pretty": False},
                },
            ),
            (
                "memory://other",
                {
                    "BACKEND": "outbox.brokers.memory.MemoryPublisher",
                    "OPTIONS": {"name": "other"},
                },
            ),
        ],
    )
    def test_a_url_is_an_entry_of_brokers(self, url, entry):
        assert broker_from_url(url) == entry

    @pytest.mark.parametrize("url", ["amqp://h", "amqps://h/v", "kafka://h", "memory://"])
    def test_the_checks_accept_it_for_both_sides(self, url):
        made = {
            "OUTBOX": {"SOURCE": "/shop", "BROKERS": {"default": broker_from_url(url)}},
            "INBOX": {"BROKERS": {"default": inbox.conf.broker_from_url(url)}},
        }
        with override_settings(**made):
            assert found() == []

    def test_another_scheme_is_refused_without_telling_the_password(self):
        with pytest.raises(ImproperlyConfigured, match=r"starts with amqp://.* not redis://") as no:
            broker_from_url("redis://:secret@h")
        assert "secret" not in str(no.value)
