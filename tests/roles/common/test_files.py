from pathlib import Path

import pytest

from roles.common.files import replacing, write_atomically


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
