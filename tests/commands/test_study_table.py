"""The table of a search as Markdown."""

from __future__ import annotations

from typing import Any

from pawmatch.commands.study_table import study_page, study_table
from pawmatch.training.search import Latency, Row, Run, Table

CONDITIONS: dict[str, Any] = {
    "seeds": 1,
    "heatmaps": 0,
    "latency_rounds": 50,
    "device": "cpu",
    "threads": 1,
    "torch": "2.15.0",
    "train_images": 2932,
    "validation_images": 366,
}


def table(*rows: Row, **conditions: Any) -> Table:
    return Table("mine", "", rows, {**CONDITIONS, **conditions})


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def row(*losses: float) -> Row:
    runs = tuple(Run(seed, 402_417, loss, 0.5, 0.0123, 60.0) for seed, loss in enumerate(losses))
    values = {"architecture.kernel": 5, "sizes": [[0.0, 64]]}
    return Row("kernel 5", values, runs, latency=Latency(4.26, 1.131), front=True)


def test_a_row_has_every_figure() -> None:
    head, rule, line = study_table(table(row(1.2346)))
    assert len(cells(head)) == len(cells(rule)) == len(cells(line))
    assert dict(zip(cells(head), cells(line), strict=True)) == {
        "trial": "kernel 5",
        "sets": "`kernel=5` `sizes=[[0.0, 64]]`",
        "parameters": "402,417",
        "latency, ms": "4.3",
        "relative": "1.13",
        "validation loss": "1.235",
        "top-1": "50.0%",
        "ECE": "0.012",
        "Pareto front": "yes",
    }


def test_seeds_show_their_spread() -> None:
    line = study_table(table(row(1.0, 1.5), seeds=2))[-1]
    assert cells(line)[5] == "1.250 ± 0.250"
    assert "means of 2 seeds" in study_page(table(row(1.0, 1.5), seeds=2), "pawmatch search")


def test_heatmaps_have_columns_where_they_were_tested() -> None:
    runs = tuple(
        Run(seed, 400, 1.0, 0.5, 0.01, 60.0, deletion=0.02 * seed, insertion=-0.1) for seed in range(2)
    )
    tested = table(Row("a", {}, runs, latency=Latency(4.0, 1.0)), seeds=2, heatmaps=60)
    head, _, line = study_table(tested)
    assert cells(head)[-2:] == ["deletion", "insertion"]
    assert cells(line)[-2:] == ["+0.010 ± 0.010", "-0.100 ± 0.000"]
    assert "on 60 validation images" in study_page(tested, "cmd")
    assert "deletion" not in cells(study_table(table(row(1.0)))[0])


def test_failed_trials_stand_below() -> None:
    lines = study_table(table(row(1.0), Row("odd", {}, failure="no room")))
    assert lines[-2:] == ["", "- odd failed: no room"]
    assert not any("odd" in line for line in lines[:-1])


def test_the_page_names_the_command_and_the_conditions() -> None:
    page = study_page(table(row(1.0)), "pawmatch search --study mine")
    assert page.startswith(
        "Made by `pawmatch search --study mine` on 2,932 training images and 366 validation images."
        "\n\n| trial |"
    )
    assert "50 rounds" in page
    assert "cpu, threads: 1, torch 2.15.0" in page
    assert "seeds" not in page


def test_nothing_trained_is_an_empty_table() -> None:
    page = study_page(
        table(Row("odd", {}, failure="no room"), train_images=None, validation_images=None), "cmd"
    )
    assert page.startswith("Made by `cmd`.\n")
    assert "- odd failed: no room" in page
