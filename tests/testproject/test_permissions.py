import pytest

VIEW, POST = "chat.view_room", "chat.post_room"


def test_a_member_may_read_and_write(alice, lobby):
    assert alice.has_perms([VIEW, POST], lobby)


@pytest.mark.parametrize("permission", [VIEW, POST])
def test_a_non_member_may_neither_read_nor_write(bob, lobby, permission):
    assert not bob.has_perm(permission, lobby)


def test_staff_may_read(staff, lobby):
    assert staff.has_perm(VIEW, lobby)


def test_staff_may_not_write(staff, lobby):
    assert not staff.has_perm(POST, lobby)


def test_an_inactive_member_may_not_read(alice, lobby):
    alice.is_active = False
    assert not alice.has_perm(VIEW, lobby)


def test_membership_says_nothing_about_other_permissions(alice, lobby):
    assert not alice.has_perm("chat.delete_room", lobby)


def test_membership_of_one_room_is_none_of_all_rooms(alice, lobby):
    assert not alice.has_perm(VIEW)
