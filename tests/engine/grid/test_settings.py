"""What a grid says of its methods' settings and budgets is checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segbench.engine.data.tasks import tasks_of
from segbench.engine.grid import Block, Catalogue, DatasetFacts, GridSpec, Run, expand
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.scheduler.planning import GridRequest, plan
from segbench.errors import SegbenchError

CATALOGUE = Catalogue({"cells": DatasetFacts(tasks_of("cells", ("image",), ("cell",)), ("lung",), "f1")})
CARD = (
    "from segbench.methods import Budget, Card, Setting\n"
    "METHOD = Card(name='later', title='Later', family='acme', environment='engine', category='classical',\n"
    "              trained=False, attention=False, budget=Budget(batch_size=1), settings={SETTINGS})\n"
)


def runs_of(method: str, settings: dict[str, Any] | None = None) -> list[Run]:
    block = Block(methods=(method,), tasks=("cells-cell-1ch",))
    return expand(GridSpec(blocks=(block,), settings={method: settings or {}}), CATALOGUE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("settings: {stardist: {n_ray: 8}}", "settings.stardist: unknown setting 'n_ray'; did you mean n_rays"),
        ("settings: {stardist: {n_rays: many}}", "settings.stardist.n_rays: found 'many'; allowed: a whole number"),
        ("settings: {stardist: {n_rays: 2.5}}", "found 2.5; allowed: a whole number of at least 3"),
        ("settings: {stardist: {learning_rate: 1e-3}}", "found '1e-3' (a text: write 0.001"),
        ("settings: {stardist: {percentiles: [1]}}", "allowed: a list of 2, each a number from 0 to 100"),
        ("settings: {cellpose: {optimizer: adam}}", "settings.cellpose.optimizer: found 'adam'; allowed: sgd or adamw"),
        ("settings: {mesmer: {postprocessing: tune}}", "allowed: upstream or application-nuclear"),
        ("settings: {resnest: {detections: 100}}", "found 100; allowed: a whole number of at least 3000"),
        ("settings: {stardst: {n_rays: 8}}", "unknown method 'stardst'; did you mean stardist"),
        ("budgets: {stardist: {iterations: 5}}", "budgets.stardist.iterations: found 5, but stardist counts epochs"),
        ("budgets: {stardist: {epoch: 5}}", "unknown field of budgets.stardist 'epoch'; did you mean epochs"),
        ("budgets: {watershed: {epochs: 5}}", "watershed is not trained; allowed: batch_size"),
        ("budgets: {stardist: {epochs: -1}}", "field budgets.stardist.epochs must be at least 0"),
        ("resources: {stardist: {gpus: 1}}", "unknown field of resources.stardist 'gpus'; did you mean num_gpus"),
    ],
)
def test_one_line_names_the_file_the_key_what_was_found_and_what_is_allowed(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(f"methods: [stardist]\ntasks: [synthetic-nuclear-1ch]\n{text}\n")
    with pytest.raises(SegbenchError) as error:
        plan(GridRequest(grid_file=path), ResultsFolder(tmp_path / "out"))
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message


def test_the_examples_hold(request: pytest.FixtureRequest) -> None:
    from segbench.engine.grid import read_grid
    from segbench.engine.grid.settings import check_changes

    examples = sorted((request.config.rootpath / "examples").glob("*.yaml"))
    assert examples
    for path in examples:
        check_changes(read_grid(path))


def test_an_id_has_the_number_as_it_was_written_and_the_job_gets_it_so() -> None:
    (whole,), (point,) = runs_of("watershed", {"sigma": 2}), runs_of("watershed", {"sigma": 2.0})
    assert whole.id != point.id
    assert (type(whole.settings["sigma"]), type(point.settings["sigma"])) == (int, float)
    assert runs_of("watershed", {"sigma": 1.0})[0].id == runs_of("watershed")[0].id


def test_a_setting_that_came_later_keeps_the_ids_of_its_default(add_distribution: Callable[..., Path]) -> None:
    first = "{'depth': Setting(4, 'layers')}"
    folder = add_distribution("acme", {"acme_later.py": CARD.replace("{SETTINGS}", first)}, "later = acme_later:METHOD")
    (before,) = runs_of("later")

    def runs_with(declared: str, settings: dict[str, Any] | None = None) -> Run:
        import sys

        from segbench.engine.grid import cards

        (folder / "acme_later.py").write_text(CARD.replace("{SETTINGS}", f"{first[:-1]}, 'flips': {declared}}}"))
        sys.modules.pop("acme_later", None)
        sys.dont_write_bytecode = True
        cards.forget()
        return runs_of("later", settings)[0]

    neutral = "Setting((0.0, 1.0), 'what it does', neutral_default=True)"
    same, written, other = (runs_with(neutral, s) for s in (None, {"flips": [0, 1]}, {"flips": [0, 0.5]}))
    assert same.id == written.id == before.id
    assert same.settings == {"depth": 4, "flips": (0.0, 1.0)}
    assert other.id != before.id
    assert runs_with("Setting((0.0, 1.0), 'what it does')").id != before.id
