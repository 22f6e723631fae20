from pathlib import Path

import pytest

from roles.common.files import replacing, write_atomically, writing_of


@pytest.mark.parametrize("content", ["text", b"bytes"])
def test_a_file_is_written_whole_into_a_folder_that_need_not_exist(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, "before")
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


def test_an_error_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def write_half() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            assert path.read_text() == "before"
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_written_again_is_told_from_the_one_before_even_if_it_holds_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert writing_of(path) == (0, 0)
    write_atomically(path, "same")
    first = writing_of(path)
    path.read_text()
    assert writing_of(path) == first != (0, 0)
    write_atomically(path, "same")
    assert writing_of(path) != first
