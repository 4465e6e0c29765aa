"""Slow tests that CI has no time for: `make test-exhaustive` runs them.

Each takes more than ten seconds of CPU, by itself or with the servers that it starts, and goes a
long way round to something whose parts other tests of its module, or of the module that it is
about, look at directly. CI ends after 90 minutes.
"""

COSTLY: dict[str, frozenset[str]] = {
    "test_automation": frozenset(
        {
            "test_days_before_the_first_champion_are_asked_for_once",
            "test_a_promotion_scores_no_day_again_and_training_is_never_asked_for",
            "test_nothing_goes_past_a_blocking_check_that_failed_in_another_run",
            "test_a_partition_in_progress_is_not_asked_for_a_second_time",
            "test_the_first_champion_begins_with_the_days_that_come",
        }
    ),
    "test_backfill_servers": frozenset(
        {
            "test_two_commands_at_once_launch_a_chunk_once",
            "test_the_daemon_does_it_where_it_is_asked_to",
            "test_a_failed_run_is_an_error_with_its_reason",
            "test_the_daemon_catches_up_by_itself",
        }
    ),
    "test_backfill_workers": frozenset({"test_two_commands_share_a_range"}),
    "test_dagster_ui": frozenset({"test_promotions_show_the_cutoffs_that_exist"}),
    "test_demo": frozenset({"test_an_interrupt_says_how_to_continue"}),
    "test_deploy_proxy": frozenset({"test_a_browser_logs_in_and_shows_dagster"}),
    "test_docs_requests": frozenset({"test_requests_are_answered_as_printed"}),
    "test_engines_spark": frozenset({"test_the_views_of_flights_are_those_in_process"}),
    "test_engines_spark_cluster": frozenset(
        {"test_after_a_killed_driver_the_command_again_finishes"}
    ),
    "test_environments_dagster": frozenset(
        {"test_after_an_upgrade_the_gate_lets_a_version_of_the_new_environment_serve"}
    ),
    "test_faults": frozenset(
        {"test_a_code_server_killed_together_with_its_runs", "test_mlflow_unavailable_for_a_while"}
    ),
    "test_features_planting_corrections": frozenset(
        {
            "test_a_known_at_that_is_later_than_it_has_to_be_leaves_room",
            "test_rows_that_are_known_late_leak_in_more_ways",
        }
    ),
    "test_features_versions": frozenset(
        {"test_day_by_day_in_any_order_and_twice_the_versions_are_the_same"}
    ),
    "test_publish_turns": frozenset(
        {"test_machines_that_publish_one_table_come_one_after_the_other"}
    ),
    "test_registry_mirrors": frozenset(
        {
            "test_a_command_killed_before_the_alias_is_set",
            "test_a_service_repairs_the_alias_as_it_starts",
        }
    ),
    "test_serving_attacks": frozenset({"test_schemathesis_finds_no_fault"}),
    "test_serving_replicas": frozenset(
        {"test_one_that_starts_without_the_lake_is_ready_once_that_is_there"}
    ),
    "test_sources_selection": frozenset({"test_days_of_postgresql_are_its_range"}),
    "test_spec_expiry": frozenset({"test_a_range_equals_its_partitions_and_the_online_store"}),
    "test_status": frozenset({"test_a_failed_run_is_shown_where_no_sensor_looks_at_runs"}),
    "test_stores_made": frozenset({"test_a_maker_killed_before_any_of_its_statements"}),
}
"""Tests by module. Of a module whose tests build on each other only the last ones can be here."""
