"""Numbers of things in messages."""

from anomalib_defect_plugins.core.text import counted


def test_one_thing_is_singular_and_any_other_number_plural() -> None:
    assert [counted(number, "defective image") for number in (0, 1, 2)] == [
        "0 defective images",
        "1 defective image",
        "2 defective images",
    ]
