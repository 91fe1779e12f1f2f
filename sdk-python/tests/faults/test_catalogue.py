"""What the SDK is promised to survive, case by case, and the tests that hold it to that."""

import ast
from functools import cache
from pathlib import Path

import pytest

HERE, SDK, CHAOS = "sdk-python/tests/faults", "sdk-python/tests", "tests/chaos"
ROOT = Path(__file__).parents[3]
NUMBERS = range(1, 57)

# By the number of the case: where, and which tests.
CASES = {
    # Answers and connections
    1: [f"{SDK}/test_client.py::test_every_id_arrives_once"],
    **{
        number: [f"{SDK}/test_worker.py::test_after_a_fault_the_same_events_go_again"]
        for number in (2, 3, 4, 5, 6, 7, 18)
    },
    8: [f"{CHAOS}/test_sdk_faults.py::test_a_lost_answer_is_asked_for_again"],
    9: [f"{CHAOS}/test_sdk_faults.py::test_whatever_a_line_does_to_a_request_it_arrives_once"],
    10: [
        f"{CHAOS}/test_sdk_faults.py"
        "::test_a_connection_that_is_dead_and_does_not_say_so_is_given_up"
    ],
    11: [f"{CHAOS}/test_sdk_faults.py::test_after_an_outage_events_arrive_in_order"],
    12: [f"{SDK}/test_worker.py::test_413_halves_the_batch"],
    13: [f"{SDK}/test_worker.py::test_413_for_ever_rejects_each_event"],
    14: [f"{SDK}/test_worker.py::test_400_finds_the_bad_event_and_saves_its_neighbours"],
    15: [
        f"{SDK}/test_transport.py::test_a_redirect_is_not_followed",
        f"{HERE}/test_answers.py::test_nothing_reaches_the_target_of_a_redirect",
    ],
    16: [f"{SDK}/test_worker.py::test_retry_after_is_obeyed"],
    17: [
        f"{SDK}/test_worker.py::test_after_a_fault_the_same_events_go_again",
        f"{SDK}/test_retry.py::test_spec_vector",
    ],
    19: [f"{SDK}/test_worker.py::test_a_wrong_key_holds_the_events"],
    20: [f"{HERE}/test_latency.py::test_a_call_is_fast_while_the_collector_hangs"],
    # The end of a process
    21: [
        f"{HERE}/test_end_delay.py::test_an_end_is_kept_as_long_as_promised",
        f"{HERE}/test_end_delay.py::test_several_clients_keep_an_end_no_longer_than_one",
    ],
    22: [f"{HERE}/test_end_delay.py::test_an_end_is_kept_as_long_as_promised"],
    23: [f"{SDK}/test_process.py::test_an_orderly_end_delivers_everything"],
    24: [
        f"{SDK}/test_spool.py::test_durable_events_survive_every_end_of_a_process",
        f"{HERE}/test_sigterm.py::test_events_are_delivered_and_the_exit_status_is_the_signals",
    ],
    25: [
        f"{SDK}/test_process.py::test_tracking_at_the_very_end_is_harmless",
        f"{SDK}/test_process.py::test_a_daemon_thread_may_track_until_the_end",
        f"{HERE}/test_interpreter_end.py::test_flushing_at_the_very_end_is_harmless",
    ],
    # Values
    26: [
        f"{SDK}/test_values.py::test_every_value_arrives_in_some_form",
        f"{HERE}/test_hostile_values.py::test_no_value_raises_or_harms_its_neighbours",
    ],
    27: [
        f"{SDK}/test_client.py::test_the_event_is_as_it_was_when_tracked",
        f"{SDK}/test_client.py::test_a_dict_that_another_thread_changes_is_no_danger",
        f"{HERE}/test_hostile_values.py::test_no_value_raises_or_harms_its_neighbours",
    ],
    28: [f"{SDK}/test_client.py::test_a_call_that_makes_no_event_returns_false"],
    29: [f"{SDK}/test_logs.py::test_no_log_has_a_key_or_a_value"],
    30: [
        f"{SDK}/test_logs.py::test_a_reason_is_logged_once_a_minute",
        f"{SDK}/test_logs.py::test_a_storm_of_refusals_is_few_lines",
    ],
    # Forks, signals, green threads, event loops
    31: [f"{SDK}/test_process.py::test_a_fork_while_others_hold_every_lock"],
    32: [f"{SDK}/test_process.py::test_parent_and_child_deliver_their_own_events_once"],
    33: [
        f"{HERE}/test_prefork.py::test_gunicorn",
        f"{HERE}/test_prefork.py::test_each_process_of_gunicorn_has_one_segment_of_its_own",
        f"{HERE}/test_prefork.py::test_uwsgi_with_the_options_that_we_ask_for",
        f"{HERE}/test_prefork.py::test_each_way_to_start_a_process_of_multiprocessing",
        f"{HERE}/test_prefork.py::test_a_fork_in_a_thread",
        f"{HERE}/test_prefork.py::test_forks_while_many_threads_track",
    ],
    34: [f"{SDK}/test_spool.py::test_a_child_of_fork_lets_go_of_its_parents_files"],
    35: [f"{SDK}/test_process.py::test_a_signal_handler_may_track_in_the_middle_of_a_track"],
    36: [f"{SDK}/test_process.py::test_a_storm_of_signals_loses_no_event"],
    37: [f"{HERE}/test_green_threads.py::test_everything_is_delivered_and_nobody_is_blocked"],
    38: [f"{HERE}/test_latency.py::test_an_asynchronous_app_does_not_feel_a_hanging_collector"],
    # Names, certificates, proxies, hostile answers
    39: [f"{SDK}/test_process.py::test_an_end_is_not_kept_for_long"],
    40: [f"{HERE}/test_name_lookup.py::test_a_silent_resolver_keeps_neither_a_flush_nor_an_end"],
    41: [
        f"{HERE}/test_tls.py::test_a_good_certificate_is_taken",
        f"{HERE}/test_tls.py::test_a_wrong_certificate_gets_nothing",
        f"{HERE}/test_tls.py::test_a_server_without_tls_gets_nothing_in_clear",
    ],
    42: [
        f"{HERE}/test_proxies.py::test_a_proxy_for_https_sees_no_key",
        f"{HERE}/test_proxies.py::test_a_dead_proxy_keeps_the_events",
        f"{HERE}/test_proxies.py::test_no_proxy_goes_round_it",
    ],
    43: [
        f"{SDK}/test_transport.py::test_one_deadline_holds_for_the_whole_request",
        f"{HERE}/test_answers.py::test_a_hostile_answer_takes_neither_memory_nor_time",
    ],
    # The disk
    44: [f"{SDK}/test_spool.py::test_durable_events_survive_every_end_of_a_process"],
    45: [f"{SDK}/test_spool.py::test_nothing_is_lost_when_writers_are_killed_at_random"],
    46: [
        f"{HERE}/test_power_cut.py::test_with_fsync_a_power_cut_costs_nothing",
        f"{HERE}/test_power_cut.py::test_without_fsync_it_costs_about_the_last_second",
    ],
    47: [
        f"{SDK}/test_segment.py::test_a_full_disk_leaves_the_records_before_intact",
        f"{HERE}/test_spool_disks.py::test_a_full_disk_turns_events_away_until_there_is_room",
    ],
    48: [
        f"{SDK}/test_spool.py::test_a_process_without_descriptors_goes_on",
        f"{HERE}/test_spool_disks.py::test_where_files_are_limited_an_answer_is_true_or_false",
    ],
    49: [
        f"{SDK}/test_spool.py::test_without_a_disk_events_wait_in_memory",
        f"{HERE}/test_spool_disks.py::test_on_a_read_only_disk_delivery_goes_on_from_memory",
        f"{HERE}/test_spool_disks.py"
        "::test_where_nothing_may_be_written_events_are_delivered_from_memory",
        f"{SDK}/test_spool.py::test_a_working_directory_that_is_gone_is_no_error",
    ],
    50: [
        f"{SDK}/test_spool.py::test_after_a_failed_fsync_the_segment_is_given_up",
        f"{SDK}/test_spool.py::test_a_file_that_could_not_be_written_through_is_not_tried_again",
        f"{SDK}/test_segment.py::test_what_could_not_be_taken_back_is_not_built_upon",
        f"{HERE}/test_spool_disks.py::test_only_the_writes_that_fail_are_turned_away",
    ],
    51: [f"{SDK}/test_segment.py::test_flipped_bits_cost_the_records_they_hit_and_no_other"],
    52: [
        f"{SDK}/test_spool.py::test_nothing_is_lost_when_writers_are_killed_at_random",
        f"{SDK}/test_spool.py::test_one_process_goes_on_with_what_another_left",
        f"{HERE}/test_spool_sharing.py::test_process_1_of_each_container_is_another_process",
        f"{HERE}/test_spool_sharing.py"
        "::test_only_the_lot_in_hand_goes_again_when_a_recoverer_is_killed",
    ],
    53: [
        f"{SDK}/test_spool.py::test_a_folder_that_is_not_safe_is_not_used",
        f"{SDK}/test_spool.py::test_what_is_not_ours_is_left_alone",
    ],
    54: [
        f"{SDK}/test_spool.py::test_a_full_spool_turns_the_newest_away_and_keeps_the_old",
        f"{SDK}/test_spool.py::test_with_the_collector_away_a_client_fills_its_spool_and_no_more",
    ],
    # Clock and account
    55: [
        f"{HERE}/test_clock.py::test_an_event_does_not_wait_for_the_wall_clock",
        f"{HERE}/test_clock.py::test_a_pause_is_as_long_as_the_collector_asked_for",
    ],
    56: [
        f"{SDK}/test_worker.py::test_the_account_adds_up_in_chaos",
        f"{CHAOS}/test_sdk_faults.py::test_the_account_is_exact_through_faults_and_a_kill",
    ],
}


@cache
def functions_of(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_case_has_a_test():
    """None is forgotten."""
    assert sorted(CASES) == list(NUMBERS)


@pytest.mark.parametrize("number", CASES, ids="SDK-{:02}".format)
def test_the_tests_of_a_case_exist(number):
    """A test that is renamed or removed takes its line here with it."""
    missing = [
        test
        for test in CASES[number]
        if test.partition("::")[2] not in functions_of(test.partition("::")[0])
    ]

    assert CASES[number]
    assert missing == []
