from __future__ import annotations

from qsci_plugins.report.bench_tables import bench_table
from qsci_plugins.report.summary import latency_table, quality_table, summary, table

QUALITY = {
    "Set5": {
        "float": {"psnr": 37.80, "ssim": 0.9605, "fab": 32.0},
        "torch": {"psnr": 37.35, "ssim": 0.9590, "fab": 3.5},
        "openvino": {"psnr": None, "ssim": 1.0, "fab": None},
    }
}
ROWS = [
    {"name": "fp32", "title": "OpenVINO fp32", "median_ms": 200.0, "fast_ms": 190.0, "slowest_ms": 250.0},
    {"name": "ours", "title": "ours", "median_ms": 60.0, "fast_ms": 55.0, "slowest_ms": 70.0},
]
OPS = {"macs": 2e9, "cadyq_bitops": 2e9, "qsci_ops": 2e9, "weight_activation_bitops": 2e12}
METRICS = {
    "task": "sr",
    "network": {"architecture": "edsr", "scale": 2, "weights": None, "shortcuts": []},
    "backend": "nncf",
    "scheme": {"name": "adabm", "weight_bits": 4},
    "sets": QUALITY,
    "operations": {"input": [360, 640], "float": OPS, "quantized": {**OPS, "qsci_ops": 5e8}},
    "seconds": {"calibration": 12.34, "fine_tuning": 100.0},
    "latency": {"tile": [180, 320], "threads": 2, "rows": ROWS},
    "bits": {"body.0": {"weight": 4.0, "activation": 3.62}},
    "machine": {"processor": "CPU", "cores": 2, "memory_gib": 8.0, "system": "Linux", "torch": "2.14"},
}


def test_tables_line_up_and_are_markdown() -> None:
    lines = table(["a", "number"], [["first", "1"], ["second one", "22"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| ---------- | -----: |"


def test_quality_says_the_loss_against_float() -> None:
    text = quality_table(QUALITY)
    assert "37.35 |    0.45 | 0.9590 |     3.50" in text
    assert "equal" in text


def test_no_loss_is_never_minus_zero() -> None:
    sets = {"A": {"float": {"psnr": 30.0, "ssim": 1.0}, "torch": {"psnr": 30.001, "ssim": 1.0}}}
    assert "-0.00" not in quality_table(sets)


def test_latency_says_the_share_of_fp32_and_the_quality_where_it_was_measured() -> None:
    assert "| 0.30 |" in latency_table(ROWS).replace("    0.30", " 0.30")
    rows = [{**row, "psnr": {"Set5": 37.0}} for row in ROWS]
    text = bench_table({"model": "runs/a", "tile": [180, 320], "threads": 2, "repeats": 9, "rows": rows})
    assert text.startswith("runs/a: one 320x180 tile, 2 threads, 9 runs")
    assert "Set5 dB" in text
    assert "37.00" in text


def test_a_row_that_failed_says_why_below_the_table() -> None:
    empty = dict.fromkeys(("median_ms", "fast_ms", "slowest_ms"))
    failed = {"name": "fp32", "title": "OpenVINO fp32", **empty, "failed": "no such operation"}
    ours = {**ROWS[1], "file_bytes": 2**20, "psnr": {"Set5": 37.0}}
    text = latency_table([failed, ours])
    lines = text.splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["OpenVINO fp32", "fails", "", "", "", "", ""]
    assert "37.00" in lines[3]
    assert lines[-1] == "OpenVINO fp32 fails: no such operation"
    assert len({len(line) for line in lines[:4]}) == 1


def test_a_row_that_was_cut_says_what_it_lacks() -> None:
    cut = {**ROWS[0], "psnr": None, "cut": ["PSNR took longer than 5 s"]}
    text = latency_table([cut, {**ROWS[1], "psnr": {"Set5": 37.0, "B100": None}}])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:4]]
    assert [row[-2:] for row in cells] == [["", ""], ["37.00", "equal"]]
    assert text.splitlines()[-1] == f"{ROWS[0]['title']}: PSNR took longer than 5 s"


def test_a_bench_of_video_says_how_many_frames_a_tile_has() -> None:
    rows = [{**row, "export_seconds": None, "psnr": {"builtin": 30.5}} for row in ROWS]
    rows[0]["export_seconds"] = 35.04
    text = bench_table({"model": "a", "tile": [256, 128], "frames": 8, "threads": 2, "repeats": 9, "rows": rows})
    assert text.startswith("a: one 128x256 tile of 8 frames, 2 threads, 9 runs")
    for part in ("export s", "35.0", "builtin dB", "30.50"):
        assert part in text, part


def test_the_summary_has_every_part() -> None:
    text = summary(METRICS, ["bits_a.png"])
    for part in ("# edsr x2, adabm through nncf", "Weights: random", "0.250", "fine-tuning", "![bits_a.png]"):
        assert part in text, part
    assert "No benchmark set" in summary({**METRICS, "sets": {}, "latency": None})


def test_video_is_shown_scene_by_scene() -> None:
    def scored(first: float, second: float) -> dict[str, object]:
        pieces = {"a": {"psnr": first, "ssim": 0.5, "fab": 4.0}, "b": {"psnr": second, "ssim": None, "fab": 4.0}}
        return {"psnr": (first + second) / 2, "ssim": 0.5, "fab": 4.0, "pieces": pieces}

    sets = {"mine": {"float": scored(20.0, 40.0), "torch": scored(19.0, 38.0)}}
    text = summary({**METRICS, "task": "sci", "network": {**METRICS["network"], "shortcuts": ["fem.*"]}, "sets": sets})
    assert "# edsr, adabm through nncf" in text
    assert "Shortcuts: fem.*." in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| mine")]
    assert rows[0] == ["mine a: float", "20.00", "", "0.5000", "4.00"]
    assert rows[4] == ["mine b: quantized, torch", "38.00", "95.00 %", "", "4.00"]
    assert rows[5] == ["mine mean: quantized, torch", "28.50", "95.00 %", "0.5000", "4.00"]
