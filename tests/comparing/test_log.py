from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsci_plugins.comparing.log import open_log
from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.task import PieceResult

FIRST = PieceResult("baby", 38.123456789, 0.987654321, 5.25, {"cadyq_bitops": 1e9})
EQUAL = PieceResult("flat", math.inf, None)


def test_what_was_added_is_there_in_the_next_call(tmp_path: Path) -> None:
    file = tmp_path / "new" / "log.jsonl"
    with open_log(file) as log:
        assert log.get("form", "image") is None
        log.add("form", "image", FIRST, set="Set5")
        log.add("form", "other", EQUAL)
        assert log.get("form", "image") == FIRST
    with open_log(file) as log:
        assert log.get("form", "image") == FIRST
        assert log.get("form", "other") == EQUAL
        assert log.get("image", "form") is None
        log.add("later", "image", FIRST)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["form"] for line in lines] == ["form", "form", "later"]
    assert lines[0]["set"] == "Set5"
    assert lines[1]["psnr"] is None


@given(st.data())
def test_a_line_that_a_killed_process_left_half_written_is_lost_alone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("log") / "log.jsonl"
    with open_log(file) as log:
        log.add("a", "1", FIRST)
    first = file.stat().st_size
    with open_log(file) as log:
        log.add("a", "2", FIRST)
    content = file.read_bytes()
    file.write_bytes(content[: data.draw(st.integers(first, len(content) - 1))])
    with open_log(file) as log:
        assert log.get("a", "1") == FIRST
        assert log.get("a", "2") is None
        log.add("a", "3", FIRST)
    with open_log(file) as log:
        assert [log.get("a", image) for image in "123"] == [FIRST, None, FIRST]


def test_another_file_and_a_second_process_are_clear_errors(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with open_log(file) as log:
        log.add("a", "1", FIRST)
        with pytest.raises(UserError, match="another process is writing"), open_log(file):
            pass
    file.write_text(file.read_text() + "hello\n")
    with pytest.raises(UserError, match="line 2 is no measurement; remove the file"), open_log(file):
        pass


def test_lines_that_version_0_1_wrote_are_still_read(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    old = {"form": "a", "image": "1", "set": "Set5", "name": "baby", "psnr_y": 38.5, "ssim": 0.9}
    equal = {**old, "image": "2", "psnr_y": None, "extras": {}}
    file.write_text(json.dumps({**old, "extras": {"fab": 5.0, "cadyq_bitops": 2.0}}) + "\n" + json.dumps(equal) + "\n")
    with open_log(file) as log:
        assert log.get("a", "1") == PieceResult("baby", 38.5, 0.9, 5.0, {"cadyq_bitops": 2.0})
        assert log.get("a", "2") == PieceResult("baby", math.inf, 0.9, None, {})
