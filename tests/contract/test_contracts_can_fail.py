"""Each rule of each contract catches a driver or store that breaks it."""

from __future__ import annotations

import functools
import inspect
import uuid

import pytest

from inbox.testing import ConsumerContract
from inbox.testing import consumer_bench as consuming
from outbox.brokers.memory import MemoryPublisher
from outbox.runtime import hub
from outbox.testing import PublisherContract, StoreContract
from outbox.testing.contracts import publisher_bench as publishing
from outbox.testing.contracts import store_bench as storing
from outbox.wire import from_headers
from tests.broken import consumers, publishers, stores


def all_of(suite) -> set[str]:
    return {name for name, _ in inspect.getmembers(suite) if name.startswith("test_")}


def breaks(suite, test: str, rule: str) -> None:
    """The suite's test fails, and says this rule first."""
    with pytest.raises(AssertionError) as caught:
        getattr(suite(), test)()
    assert str(caught.value).startswith(rule)


class Publishing(PublisherContract):
    driver = MemoryPublisher
    option = "name"
    client_modules = ("wave",)
    patience = 0.5

    @functools.cached_property
    def name(self):
        return uuid.uuid4().hex

    def publisher(self):
        return self.driver("default", "", {"name": self.name})

    def unreachable(self):
        return self.publisher()

    def received(self, topic, count):
        records = hub.get(self.name).records(topic)
        return [from_headers(record.headers, record.body) for record in records]

    def cut(self):
        return True


class Reporting(Publishing):
    reports_unroutable = True


PUBLISHERS = [
    # (fault, test that catches it, rule)
    ("AcksWithoutSending", "each_submission_gets_one_answer_and_arrives_as_it_was", "RECEIVED"),
    ("LosesHeaders", "each_submission_gets_one_answer_and_arrives_as_it_was", "RECEIVED"),
    ("ConfirmsTwice", "each_submission_gets_one_answer_and_arrives_as_it_was", "ONE_ANSWER"),
    ("ConfirmsTwice", "open_again_keeps_what_is_in_flight", "ONE_ANSWER"),
    ("LosesAnAnswer", "each_submission_gets_one_answer_and_arrives_as_it_was", "ONE_ANSWER"),
    ("ConfirmsAnother", "each_submission_gets_one_answer_and_arrives_as_it_was", "ONE_ANSWER"),
    (
        "LosesOnCloseWhatItAcked",
        "what_was_acked_is_there_although_the_publisher_was_closed_at_once",
        "RECEIVED",
    ),
    ("CutsLargeBodies", "the_largest_body_that_publish_accepts_arrives", "RECEIVED"),
    ("SendsNothingTwice", "a_message_may_be_sent_again_after_its_answer", "ONE_ANSWER"),
    ("AnswersOneByOne", "a_window_is_answered_in_fewer_calls_than_messages", "PIPELINED"),
    ("TakesFewAtATime", "a_window_is_answered_in_fewer_calls_than_messages", "PIPELINED"),
    ("RefusesAMegabyte", "as_many_bytes_as_it_says_may_be_in_flight", "ONE_ANSWER"),
    ("Dawdles", "confirms_waits_as_long_as_it_was_told", "IN_TIME"),
    ("ForgetsWhenOpenedAgain", "open_again_keeps_what_is_in_flight", "ONE_ANSWER"),
    ("RemembersWhenClosed", "close_forgets_what_is_in_flight", "NOTHING_KEPT"),
    ("WorksWhenClosed", "close_forgets_what_is_in_flight", "LOST"),
    ("WorksWhenClosed", "nothing_works_before_open", "LOST"),
    ("RaisesWhatItsClientRaises", "nothing_works_before_open", "LOST"),
    ("WorksAnywhere", "a_forked_child_is_refused_and_the_parent_unharmed", "ONE_OWNER"),
    ("WorksAnywhere", "another_thread_is_refused", "ONE_OWNER"),
    ("ImportsAtOnce", "nothing_is_imported_or_opened_before_open", "LAZY"),
    ("ConnectsAtOnce", "nothing_is_imported_or_opened_before_open", "LAZY"),
    ("TakesAnyOption", "an_unknown_option_is_refused_by_name", "OPTIONS"),
    ("SaysNotWhichOption", "a_misspelt_option_is_answered_with_the_nearest", "OPTIONS"),
    ("ForgetsWhenOpenedAgain", "a_broker_that_is_not_there_is_unavailable", "LOST"),
    (
        "ForgetsWhenOpenedAgain",
        "a_lost_connection_is_unavailable_until_it_is_opened_again",
        "LOST",
    ),
    (
        "ForgetsWhenOpenedAgain",
        "what_nobody_receives_is_returned_and_its_neighbours_acked",
        "UNROUTABLE",
    ),
    ("IgnoresTheAddress", "the_address_counts_and_not_the_topic", "ADDRESSED"),
    ("SendsTheLastFirst", "messages_of_one_key_arrive_in_the_order_of_their_confirms", "IN_ORDER"),
]


@pytest.mark.parametrize(("fault", "test", "rule"), PUBLISHERS)
def test_a_faulty_publisher_is_caught(fault, test, rule):
    base = Reporting if rule == "UNROUTABLE" else Publishing
    suite = type(fault, (base,), {"driver": getattr(publishers, fault)})
    breaks(suite, f"test_{test}", getattr(publishing, rule))


def test_a_publisher_that_hangs_is_caught():
    class Hanging(Publishing):
        def unreachable(self):
            return publishers.HangsWithoutABroker("default", "", {})

    breaks(Hanging, "test_a_broker_that_is_not_there_is_unavailable", publishing.LOST)


def test_every_test_of_a_publisher_has_caught_a_fault():
    assert all_of(PublisherContract) == {f"test_{test}" for _, test, _ in PUBLISHERS}


class Consuming(ConsumerContract):
    driver = consumers.MemoryConsumer
    retries_first = True
    option = "name"
    client_modules = ("wave",)
    patience = 1.6
    quiet = 0.1

    @functools.cached_property
    def name(self):
        return uuid.uuid4().hex

    def consumer(self, prefetch=10):
        usual = {"group": "g", "topics": [self.topic], "prefetch": prefetch}
        return self.driver("default", "", {"name": self.name}, **usual)

    def unreachable(self):
        return self.consumer()

    def publish(self, headers, body):
        hub.get(self.name).append(hub.Record(self.topic, headers, body))

    def dead_letters(self, count):
        return [record.body for record in hub.get(self.name).dead]

    def cut(self):
        return True


CONSUMERS = [
    ("LosesHeaders", "a_message_arrives_as_it_was_sent", "DELIVERED"),
    ("LosesSome", "a_hundred_messages_arrive_once_while_each_is_acked", "DELIVERED"),
    ("AcksWhenPolled", "acked_is_gone_and_open_comes_again_flagged", "SETTLED"),
    ("ForgetsToAck", "acked_is_gone_and_open_comes_again_flagged", "SETTLED"),
    ("NeverFlags", "acked_is_gone_and_open_comes_again_flagged", "REDELIVERED"),
    ("AcksWhenPolled", "the_same_consumer_opened_again_gets_what_was_open", "SETTLED"),
    ("NeverFlags", "the_same_consumer_opened_again_gets_what_was_open", "REDELIVERED"),
    ("AcksAllBefore", "an_ack_behind_an_open_delivery_does_not_ack_that_one", "SETTLED"),
    ("SettlesTheNextInstead", "an_ack_behind_an_open_delivery_does_not_ack_that_one", "STALE"),
    ("AcksOnRetry", "retry_comes_again_flagged", "RETRIED"),
    ("NeverFlags", "retry_comes_again_flagged", "REDELIVERED"),
    ("RetriesLast", "retry_comes_again_flagged", "RETRIED"),
    ("GivesUp", "retry_comes_again_as_often_as_it_is_said", "RETRIED"),
    ("DropsTheDead", "dead_goes_to_the_brokers_dead_letters", "DEAD_LETTERS"),
    ("RetriesTheDead", "dead_goes_to_the_brokers_dead_letters", "DEAD_LETTERS"),
    ("TakesMore", "no_more_than_prefetch_are_open", "BOUNDED"),
    ("SleepsThrough", "a_waiting_poll_wakes_up_for_a_message", "AWAKE"),
    ("Dawdles", "poll_waits_as_long_as_it_was_told", "AWAKE"),
    ("Judges", "bytes_that_are_no_message_are_delivered", "UNJUDGED"),
    ("OpensOnce", "open_and_close_twice", "OPENED"),
    ("NeverFlags", "a_broker_that_is_not_there_is_unavailable", "LOST"),
    ("WithoutACause", "a_broker_that_is_not_there_is_unavailable", "CAUSE"),
    ("RaisesWhatItsClientRaises", "a_broker_that_is_not_there_is_unavailable", "LOST"),
    ("NeverFlags", "a_lost_connection_is_unavailable_until_it_is_opened_again", "LOST"),
    ("WorksAnywhere", "a_forked_child_is_refused_and_the_parent_unharmed", "ONE_OWNER"),
    ("ImportsAtOnce", "nothing_is_imported_or_opened_before_open", "LAZY"),
    ("TakesAnyOption", "an_unknown_option_is_refused_by_name", "OPTIONS"),
    (
        "TakesAnyOption",
        "an_option_of_another_kind_is_refused_and_a_misspelt_one_with_the_nearest",
        "OPTIONS",
    ),
]


@pytest.mark.parametrize(("fault", "test", "rule"), CONSUMERS)
def test_a_faulty_consumer_is_caught(fault, test, rule):
    suite = type(fault, (Consuming,), {"driver": getattr(consumers, fault)})
    breaks(suite, f"test_{test}", getattr(consuming, rule))


def test_every_test_of_a_consumer_has_caught_a_fault():
    assert all_of(ConsumerContract) == {f"test_{test}" for _, test, _ in CONSUMERS}


class Storing(StoreContract):
    store_class = stores.SQLiteStore
    using = "sqlite"

    def make_store(self):
        return self.store_class(self.using)


STORES = [
    ("CommitsItself", "what_is_rolled_back_was_never_added", "JOINED"),
    ("AltersBodies", "the_message_as_it_was_added", "UNCHANGED"),
    ("Unfenced", "a_zombie_changes_nothing", "FENCED"),
    ("Unfenced", "nor_after_the_other_has_given_the_lane_back", "FENCED"),
    ("Unfenced", "nor_when_its_message_has_failed_before", "FENCED"),
    ("Unfenced", "a_lease_is_good_for_one_settle", "ONE_EACH"),
    ("Unfenced", "a_restored_database_does_not_unfence_a_zombie", "FENCED"),
    ("UnfencedGiveBack", "a_zombie_changes_nothing", "FENCED"),
    ("TwoHolders", "one_relay_at_a_time", "ONE_HOLDER"),
    ("AllSlotsForAll", "the_lanes_share_all_slots", "ALL_SLOTS"),
    ("AllSlotsForAll", "only_the_slots_of_the_lane", "ALL_SLOTS"),
    ("AllSlotsForAll", "due_only_in_the_slots_of_the_lane", "ALL_SLOTS"),
    ("LongLeases", "a_lease_is_counted_from_now", "LEASED"),
    ("RenewsForNoTime", "renewed_it_is_taken", "ONE_HOLDER"),
    ("KeepsWhatIsGivenBack", "given_back_it_is_free", "LEASED"),
    ("LeavesNoteOfNothing", "settling_notes_what_it_did", "NOTED"),
    ("LastFirst", "in_order_page_by_page", "ORDERED"),
    ("LastFirst", "in_order_also_where_rows_have_moved", "ORDERED"),
    ("MarksWhatItClaims", "looking_writes_nothing", "READ_ONLY"),
    ("DoneIsNotGone", "in_order_page_by_page", "SETTLED"),
    ("DoneIsNotGone", "an_expired_lease_that_nobody_took_still_counts", "SETTLED"),
    ("SettlesUnknown", "in_order_page_by_page", "SETTLED"),
    (
        "HoldsNobody",
        "head_fails_followers_wait_head_succeeds_followers_go_in_order",
        "HELD",
    ),
    ("HoldsNobody", "parked_behind_a_head_that_succeeds_in_the_same_page", "HELD"),
    ("HoldsNobody", "a_dead_head_keeps_its_key_and_no_other", "HELD"),
    ("HoldsTheKeyless", "without_a_key_nobody_waits", "HELD"),
    (
        "ReleasesNobody",
        "head_fails_followers_wait_head_succeeds_followers_go_in_order",
        "RELEASED",
    ),
    ("ReleasesTooEarly", "the_failure_comes_after_one_that_succeeded", "HELD"),
    ("ReleasesTooEarly", "a_dead_head_keeps_its_key_and_no_other", "HELD"),
    ("DueAtOnce", "due_by_the_clock_of_the_database", "DUE"),
    ("DueAtOnce", "many_failures_at_once", "DUE"),
    ("DeadIsRetried", "due_by_the_clock_of_the_database", "DUE"),
    ("CountsNoAttempts", "the_head_fails_again", "NOTED"),
    ("OneErrorForAll", "many_failures_at_once", "NOTED"),
    ("BusyAllTheTime", "without_messages_no_lane_is_busy", "BUSY"),
    ("BusyAllTheTime", "lanes_with_new_ones_and_due_ones_are_busy", "BUSY"),
    ("NeverBusy", "every_slot_is_looked_at", "BUSY"),
]


@pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])
@pytest.mark.parametrize(("fault", "test", "rule"), STORES)
def test_a_faulty_store_is_caught(fault, test, rule):
    suite = type(fault, (Storing,), {"store_class": getattr(stores, fault)})
    breaks(suite, f"test_{test}", getattr(storing, rule))
