from __future__ import annotations

from qsci_plugins.report.scatter import Point, bench_picture, scatter


def test_a_row_is_a_point_at_its_median_and_the_mean_of_its_sets() -> None:
    rows = [
        {"title": "a", "median_ms": 10.0, "psnr": {"Set5": 37.0, "Set14": 33.0}},
        {"title": "b", "median_ms": 30.0, "psnr": {"Set5": 38.0, "Set14": 34.0}},
    ]
    expected = scatter([Point("a", 10.0, 35.0), Point("b", 30.0, 36.0)], "ms of one tile, median", "PSNR-Y, dB")
    assert (bench_picture([{"model": "m", "task": "sr", "rows": rows}]) == expected).all()
    failed = {"title": "c", "median_ms": None, "failed": "no such operation"}
    assert (bench_picture([{"model": "m", "task": "sr", "rows": [failed, *rows]}]) == expected).all()


def test_video_has_another_measure() -> None:
    rows = [{"title": "a", "median_ms": 10.0, "psnr": {"builtin": 30.0}}]
    expected = scatter([Point("a", 10.0, 30.0)], "ms of one tile, median", "PSNR, dB")
    assert (bench_picture([{"model": "m", "task": "sci", "rows": rows}]) == expected).all()
