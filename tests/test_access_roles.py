"""Roles permit what their table says, for the use cases they were granted for, and nothing else."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.access import ANY, PERMISSIONS, Caller, Grant, Permission, Role, parse_grant
from ml_platform.errors import AccessError, Forbidden

permissions = st.sampled_from(get_args(Permission))
roles = st.sampled_from(get_args(Role))
use_cases = st.sampled_from(["trips", "flights", "orders"])
grants = st.builds(Grant, roles, use_cases | st.just(ANY))


@given(permissions, use_cases)
def test_who_was_granted_nothing_may_do_nothing(permission: Permission, use_case: str) -> None:
    assert not Caller("ada").may(permission, use_case)
    assert not Caller("ada").may(permission, ANY)


@given(st.frozensets(grants), permissions, use_cases)
def test_a_caller_may_do_what_one_grant_permits_and_no_more(
    granted: frozenset[Grant], permission: Permission, use_case: str
) -> None:
    permitted = any(
        each.use_case in (use_case, ANY) and permission in PERMISSIONS[each.role]
        for each in granted
    )
    assert Caller("ada", granted).may(permission, use_case) == permitted


@given(st.frozensets(grants), grants, permissions, use_cases)
def test_one_grant_more_removes_nothing(
    granted: frozenset[Grant], more: Grant, permission: Permission, use_case: str
) -> None:
    if Caller("ada", granted).may(permission, use_case):
        assert Caller("ada", granted | {more}).may(permission, use_case)


@given(st.frozensets(st.builds(Grant, roles, use_cases)), permissions)
def test_grants_for_some_use_cases_are_none_for_all_of_them(
    granted: frozenset[Grant], permission: Permission
) -> None:
    assert not Caller("ada", granted).may(permission, ANY)


@given(permissions)
def test_an_admin_may_do_everything(permission: Permission) -> None:
    assert Caller("ada", frozenset({Grant("admin", ANY)})).may(permission, "trips")


def test_whoever_starts_a_training_does_not_let_its_result_serve() -> None:
    assert "approve" not in PERMISSIONS["operator"]
    assert "launch" not in PERMISSIONS["approver"]


@given(grants)
def test_a_grant_is_read_as_it_is_written(grant: Grant) -> None:
    assert parse_grant(str(grant)) == grant


@pytest.mark.parametrize("text", ["operator", "operator@", "@trips", "boss@trips", ""])
def test_a_grant_says_role_and_use_case(text: str) -> None:
    with pytest.raises(AccessError):
        parse_grant(text)


def test_what_is_missing_is_named() -> None:
    ada = Caller("ada", frozenset({Grant("reader", "trips")}))
    with pytest.raises(Forbidden) as refused:
        ada.require("predict", "trips")
    assert str(refused.value) == (
        "ada lacks the permission 'predict' for 'trips'; a role that has it: predictor, operator, "
        "admin"
    )
