"""The rows of a bench: which are made, what they may take, and that they come one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qsci_plugins.cli import main
from qsci_plugins.commands.bench import bench
from qsci_plugins.comparing import bench_rows
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Advance, Progress


class Recorded(Progress):
    """What a progress is told, in order: notes, and (stage, done, text)."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def note(self, text: str) -> None:
        self.seen.append(text)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        yield lambda done, text="", total=total: self.seen.append((title, done, text))


@pytest.fixture
def no_float_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the float network was prepared")

    monkeypatch.setattr("qsci_plugins.pipeline.video_task.VideoTask.prepare", refuse)


@pytest.mark.usefixtures("in_this_process")
def test_only_the_rows_that_are_named_are_made(video_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("quantized")

    monkeypatch.setattr("nncf.quantize", refuse)
    (table,) = bench([video_run], repeats=1, threads=1, only=["torch", "fp32"])
    assert [row["name"] for row in table["rows"]] == ["fp32", "torch"]
    assert not any("failed" in row for row in table["rows"])


@pytest.mark.usefixtures("in_this_process", "no_float_network")
def test_our_own_rows_need_no_float_network(video_run: Path) -> None:
    (table,) = bench([video_run], repeats=2, threads=1, only=["ours"])
    ((row),) = table["rows"]
    assert (row["name"], row["repeats"], "cut" in row) == ("ours", 2, False)


def test_names_of_no_row_are_refused_in_one_line(video_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(video_run), "--only", "ours", "int8"]) == 2
    rows = "fp32, bf16, nncf_int8, static_int8, onnxruntime, torch, ours, skipping, routed"
    assert capsys.readouterr().err == f"qsci: error: --only int8: no row is called so; the rows are {rows}\n"
    with pytest.raises(UserError, match=r"^--only torch: .* has no such row here; it has ours$"):
        bench([video_run / "model"], only=["torch"])
    with pytest.raises(UserError, match="--limit -1: should be seconds above 0"):
        bench([video_run], limit=-1)
    assert main(["bench", str(video_run), "--tiled", "48x48", "--limit", "2"]) == 2
    assert "leave out --only and --limit" in capsys.readouterr().err


@pytest.mark.slow
def test_every_contender_is_a_step_and_every_row_is_noted_when_it_is_complete(
    video_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("qsci_plugins.comparing.bench_isolated.bench_here")  # the other process has its own
    progress = Recorded()
    (table,) = bench([video_run], repeats=2, threads=1, only=["fp32", "ours"], progress=progress)
    title = f"{video_run}: contenders"
    steps = [seen for seen in progress.seen if seen[0] == title]
    assert steps == [
        (title, 0, "OpenVINO fp32"), (title, 1, "OpenVINO fp32"), (title, 1, "ours"), (title, 2, "ours"),
    ]  # fmt: skip
    rounds = [seen[1] for seen in progress.seen if seen[0] == f"{video_run}: latency"]
    assert rounds == [1, 2, 3, 4, 5]
    fp32, ours = (bench_rows.row_text(row) for row in table["rows"])
    assert f"{table['rows'][0]['median_ms']:.1f} ms" in fp32
    assert f"builtin {table['rows'][1]['psnr']['builtin']:.2f} dB" in ours
    # the first is there before the second is scored
    scored = next(place for place, seen in enumerate(progress.seen) if seen[0] == "builtin: ours")
    assert progress.seen.index(fp32) < scored < progress.seen.index(ours)


def test_what_takes_too_long_or_crashes_is_a_row_with_its_reason_and_the_rest_goes_on(
    video_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("qsci_plugins.comparing.bench_isolated._PROCESS", "bench_of_bad_contenders")
    monkeypatch.delattr("qsci_plugins.comparing.bench_isolated.bench_here")
    command = ["bench", str(video_run), "--only", "nncf_int8", "torch", "ours", "--repeats", "2"]
    start = time.monotonic()
    assert main([*command, "--threads", "1", "--limit", "10"]) == 0
    assert time.monotonic() - start < 240  # the row that is too slow would take 600 s
    text, notes = capsys.readouterr()
    for failure in ("NNCF default INT8 fails: took longer than 10 s", "torch eager fails: crashes (SIGSEGV)"):
        assert failure in text
        assert notes.count(f"{failure}\n") == 1
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == ["NNCF default INT8", "torch eager", "ours"]
    assert float(rows[-1][1]) > 0
    assert not list(tmp_path.glob("qsci-bench-*"))
    # a row is noted as soon as it is known
    assert notes.index("NNCF default INT8 fails") < notes.index("torch eager fails") < notes.rindex("ours: ")


@pytest.mark.usefixtures("in_this_process")
def test_a_row_whose_steps_take_too_long_is_cut_and_says_so(video_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_rows, "peak_memory", lambda *_, **__: 100.0)
    monkeypatch.setattr("qsci_plugins.comparing.contenders.runner", lambda *_: lambda: None)
    monkeypatch.setattr("qsci_plugins.evaluation.latency.runner", lambda *_: lambda: time.sleep(1))
    (table,) = bench([video_run / "model"], repeats=9, threads=1, limit=3.9)
    (row,) = table["rows"]
    # three runs warm up; the fourth of 1 s ends beyond 3.9 s
    assert row["repeats"] == 1
    assert row["cut"] == [
        "1 of 9 runs were timed, the limit is 3.9 s",
        "tiles per second would take longer than 3.9 s",
    ]
    assert (row["tiles_per_second"], row["peak_mib"]) == (None, 100.0)
    quality = f"builtin {row['psnr']['builtin']:.2f} dB"
    assert bench_rows.row_text(row) == f"ours: {row['median_ms']:.1f} ms, 100 MiB, {quality}; {'; '.join(row['cut'])}"


@pytest.mark.usefixtures("in_this_process")
def test_an_interrupted_bench_prints_the_rows_that_are_complete(
    video_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = bench_rows.measure_forms

    def interrupt(task: Any, forms: dict[str, Any], *rest: Any) -> Any:
        if "ours" in forms:
            raise KeyboardInterrupt
        return measure(task, forms, *rest)

    monkeypatch.setattr(bench_rows, "measure_forms", interrupt)
    command = ["bench", str(video_run), "--only", "fp32", "ours", "--repeats", "1", "--threads", "1"]
    assert main(command) == 130
    text, errors = capsys.readouterr()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert (rows[0], rows[2:]) == ("form", ["OpenVINO fp32"])
    assert errors.endswith("qsci: stopped; the rows that were complete are printed\n")
