"""A results folder as a Python user asks it: queries, the analyses, the report, each as a Polars frame or a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.analysis.registry import analyse
from segbench.analysis.source import Source
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.mirror import open_results
from segbench.engine.results.status import grid_status
from segbench.errors import ResultsWarning, SegbenchError

if TYPE_CHECKING:
    import polars as pl

    from segbench.analysis.result import Result


class Results:
    """The results of a grid: what was launched into a folder or a URL, to be queried, analysed and reported.

    Everything is read when it is asked for, and nothing is changed; it works while a launch writes into the folder.
    Each analysis of ``segbench analyze`` is a method with the same options, which returns its main table, or the
    further one that ``part`` names, as a Polars frame. What limits its figures is told as a `ResultsWarning`; for what
    it says in sentences, and for all its tables at once, see `analyse`.

    Parameters
    ----------
    folder
        The results folder, ``--out`` of a launch; or its URL (``s3://bucket/path``), of whose store the newest snapshot
        is fetched when the object is made.

    Raises
    ------
    SegbenchError
        The URL cannot be reached. A folder without results is told when it is asked.

    Examples
    --------
    >>> import segbench
    >>> results = segbench.Results("segbench-results")
    >>> results
    Results('segbench-results')

    The published scores of 18 methods answer the same questions:

    >>> published = segbench.Results.published()
    >>> published.leaderboard().filter(task="livecell-wholecell", train_tissue="all")["method"].head(3).to_list()
    ['centermask2', 'resnest', 'swin-s']
    >>> published.query("select count(*) as models from runs_latest").item()
    138
    """

    def __init__(self, folder: str | PathLike[str] | ResultsFolder = "segbench-results") -> None:
        out = folder if isinstance(folder, ResultsFolder) else open_results(folder)
        self.folder: Path | None = out.path
        """Where the results lie on this machine: the folder itself, or the mirror of a URL; None for the published
        scores."""
        self._out: ResultsFolder | None = out
        self._source = Source.of_results(out)

    @classmethod
    def published(cls) -> Results:
        """Return the published study's scores (18 methods, 138 models), which answer as a results folder does.

        What the published table does not give (IoU thresholds, time per phase, tissues' cells) is null or empty.

        Examples
        --------
        >>> import segbench
        >>> segbench.Results.published().runs(method="stardist").select("task", "train_tissue").rows()[:2]
        [('tissuenet-nuclear-2ch', 'all'), ('tissuenet-nuclear-1ch', 'all')]
        """
        results = cls.__new__(cls)
        results.folder, results._out, results._source = None, None, Source.of_published()
        return results

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Return the rows of one read-only query over the store, as ``segbench sql`` prints them.

        Parameters
        ----------
        sql
            One query in DuckDB's dialect. Tables: attempts, phases, evaluations, whole_evaluations, images,
            resamples, gaps, cell_strata, calibration, degraded_evaluations, degraded_resamples, history, tissues;
            views: leaderboard, accuracy, timings, runs_latest, cell_metrics.
        parameters
            The values of the query's ``?`` or ``$1``, ``$2``, ...

        Raises
        ------
        SegbenchError
            There are no results, or DuckDB refuses the query (its own message).

        Examples
        --------
        >>> import segbench
        >>> published = segbench.Results.published()
        >>> sql = "select task, accuracy from accuracy where method = ? and train_tissue = 'all' order by accuracy desc"
        >>> published.query(sql, ["cellpose"]).row(0)
        ('tissuenet-nuclear-2ch', 0.83)
        """
        return self._source.frame(sql, parameters)

    def leaderboard(self) -> pl.DataFrame:
        """Return the methods of each task and training tissue, best first.

        Returns
        -------
        Columns task, train_tissue, place, method, method_title, ``accuracy`` (mean of mAP, AP50, AP75, AR50 and AR75),
        the six metrics, ``train_s`` and ``standardised_s`` (seconds), and ``runs`` (seeds that they are means over).

        Examples
        --------
        >>> import segbench
        >>> best = segbench.Results.published().leaderboard().filter(train_tissue="all", place=1)
        >>> best.select("task", "method", "accuracy").rows()[:2]
        [('livecell-wholecell', 'centermask2', 0.63), ('tissuenet-nuclear-1ch', 'cellpose', 0.77)]
        """
        return self.query("select * from leaderboard order by task, train_tissue, place, method")

    def runs(self, *, method: str | None = None, task: str | None = None, status: str | None = None) -> pl.DataFrame:
        """Return the runs, latest first, as ``segbench runs list`` prints them.

        Parameters
        ----------
        method, task
            Only runs of this method, of this task.
        status
            Only runs that ended so: done, failed, timeout, out-of-memory, diverged, cancelled, lost.

        Returns
        -------
        Columns run_id, method, task, train_tissue, train_images (null for all), seed, status, attempts, ``ap50`` (over
        the task's whole test set), ``train_s`` (seconds), host, started_at.

        Raises
        ------
        SegbenchError
            There is no such status, or there are no results.

        Examples
        --------
        >>> import segbench
        >>> segbench.Results.published().runs(method="swin-s").height
        53
        """
        from segbench.analysis.runs import list_runs

        return list_runs(self._source, method=method, task=task, status=status)

    def status(self) -> pl.DataFrame:
        """Return where every run stands, those of a launch that runs now too, as ``segbench grid status`` prints it.

        Returns
        -------
        Columns run_id, method, task, train_tissue, seed, status, ``doing`` (of one that runs), error, ``log`` (its
        path below the folder).

        Raises
        ------
        SegbenchError
            Nothing was launched there.
        """
        return grid_status(self._own_folder("status")).frame()

    def analyse(self, name: str, **options: Any) -> Result:
        """Return all that an analysis has to say: its tables, what they show in sentences, and what to beware of.

        Parameters
        ----------
        name
            As on the command line: ``ranking``, ``runtime``, ``usability``, ``channels``, ``morphology``,
            ``regression``, ``transfer``, ``training-data``, ``learning-curve``, ``robustness``, ``modality``,
            ``dilation``, ``diagnosis`` or ``recommend``.
        options
            Those of the method of that name.

        Returns
        -------
        ``table`` and ``parts`` (frames), ``findings`` and ``warnings`` (sentences), and the ``sql`` behind them.

        Raises
        ------
        SegbenchError
            For an unknown name or option.

        Examples
        --------
        >>> import segbench
        >>> segbench.Results.published().analyse("ranking").findings[0]
        'study: first place is open: ...'
        """
        return analyse(name, self._source, **options)

    def ranking(
        self,
        *,
        weights: Mapping[str, float] | None = None,
        usability: Mapping[str, float] | str | PathLike[str] | None = None,
        part: str | None = None,
    ) -> pl.DataFrame:
        """Rank the methods by accuracy, usability and scalability, with rank intervals and the Pareto front.

        Parameters
        ----------
        weights
            Of ``usability``, ``scalability``, a task's name, or ``accuracy`` for every task; 1 where none is given, 0
            leaves a component out.
        usability
            Method to usability (0..1) in place of the study's composite, or the path of a CSV file with raw scores (see
            `usability`).
        part
            ``components``, ``accuracy``, ``pairs``, ``friedman``, ``differences``, ``stability`` or ``rounding``
            instead.

        Returns
        -------
        One row a suite and method, best first: rank, ranked_among, overall and its components (0..1), hours, pareto,
        rank_low, rank_high and ``group`` (of methods that cannot be told apart), p_first, overall_low and overall_high
        (95 %) over ``interval_of``, mean_rank, complete, missing, runs, a column a task, and ``undertrained``.

        Raises
        ------
        SegbenchError
            A weight is negative, not finite or of an unknown component, or all are 0; there is no such part.

        Examples
        --------
        >>> import segbench
        >>> ranking = segbench.Results.published().ranking(weights={"usability": 0})
        >>> ranking.select("rank", "method", "overall").rows()[:2]
        [(1, 'swin-s', 0.600...), (2, 'swin-t', 0.600...)]
        """
        return self._table("ranking", part, weights=weights, usability=usability)

    def runtime(self, *, watts: float | None = None, part: str | None = None) -> pl.DataFrame:
        """Return training times, standardised times and GPU hours per method, task and training tissue.

        Parameters
        ----------
        watts
            Power of one busy GPU, for the energy; none is measured.
        part
            ``scalability`` (per method, from the times of models trained on all tissues) or ``fits`` (growth with the
            number of training images) in place of the times.

        Returns
        -------
        Means over seeds: ``train_s`` and ``standardised_s`` (seconds), ``hours`` (standardised), ``gpu_hours``,
        ``energy_kwh``, n_train_images, num_gpus, gpus, runs.

        Raises
        ------
        SegbenchError
            ``watts`` is not a positive number; there is no such part.

        Examples
        --------
        >>> import segbench
        >>> times = segbench.Results.published().runtime(part="scalability")
        >>> times.select("method", "scalability").rows()[:2]
        [('cascade-mask-rcnn-seesaw', 0.562...), ('cellpose', 0.789...)]
        """
        return self._table("runtime", part, watts=watts)

    def usability(self, *, scores: str | PathLike[str] | None = None) -> pl.DataFrame:
        """Score how usable methods are: code maintenance, ease of use and hardware support, z-scored and averaged.

        Parameters
        ----------
        scores
            Path of a CSV file with the columns method, code_maintenance, ease_of_use, hardware_support (1 to 10) and
            source; without, the scores of the methods' cards.

        Returns
        -------
        One row a method, the most usable first: raw and normal scores, ``usability`` (0..1) and its ``basis``
        ('sub-scores', 'study composite' or 'unknown').

        Raises
        ------
        SegbenchError
            The file cannot be read or is not what it should be.

        Examples
        --------
        >>> import segbench
        >>> segbench.Results.published().usability().select("method", "usability", "basis").row(0)
        ('segment-anything', 0.78, 'study composite')
        """
        return self._table("usability", None, scores=scores)

    def channels(self, *, metric: str = "accuracy") -> pl.DataFrame:
        """Compare models that see two channels with those that see one: the gain, and its price in time.

        Parameters
        ----------
        metric
            ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50`` or ``ar75``.

        Returns
        -------
        Per method, target and test tissue: ``single`` and ``dual`` (0..1), ``gain`` with ``gain_low`` and ``gain_high``
        (95 %), ``gain_percent`` of single, ``pairs``, ``single_hours`` and ``dual_hours``.

        Raises
        ------
        SegbenchError
            There is no such metric.

        Examples
        --------
        >>> import segbench
        >>> gains = segbench.Results.published().channels()
        >>> gains.select("target", "method", "gain").rows()[:1]
        [('nuclear', 'centermask2', 0.18...)]
        """
        return self._table("channels", None, metric=metric)

    def morphology(self) -> pl.DataFrame:
        """Return what each tissue is made of: training images and cells, and the mean shape of its test cells.

        Returns
        -------
        Per dataset, target and tissue: ``n_train_images``, ``n_train_cells``, ``area`` (pixels), ``area_um2`` (where
        the pixel size is known), ``elongation`` (1 is round) and ``convexity`` (0..1).
        """
        return self._table("morphology", None)

    def regression(
        self, *, metric: str = "map", exclude: Sequence[str] = ("Lung", "Spleen"), part: str | None = None
    ) -> pl.DataFrame:
        """Fit what makes a tissue hard: training images (N), cell size (S) and elongation (E), per method and task.

        Parameters
        ----------
        metric
            ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50`` or ``ar75``.
        exclude
            Tissues to leave out; empty for none.
        part
            ``points``, what was fitted, in place of the fits.

        Returns
        -------
        One row a fit and term: coefficient, std_error, low and high (95 %), p, vif, r2, r2_adjusted, p_model, tissues.

        Raises
        ------
        SegbenchError
            There is no such metric or part.
        """
        return self._table("regression", part, metric=metric, exclude=tuple(exclude))

    def transfer(self, *, metric: str = "accuracy", part: str | None = None) -> pl.DataFrame:
        """Return how models of one training tissue do on every test tissue, per task and method.

        Parameters
        ----------
        metric
            ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50`` or ``ar75``.
        part
            ``transferability``, ``best`` or ``order`` (of the tissues, by clustering) in place of the matrices.

        Returns
        -------
        The matrices, a row a cell: train_tissue, test_tissue (each with 'all'), ``value`` (0..1), runs, n_images.

        Raises
        ------
        SegbenchError
            There is no such metric or part.

        Examples
        --------
        >>> import segbench
        >>> spread = segbench.Results.published().transfer(part="transferability")
        >>> spread.select("task", "train_tissue", "pooled").row(0)
        ('livecell-wholecell', 'A172', 0.33)
        """
        return self._table("transfer", part, metric=metric)

    def training_data(
        self, tissue: str, task: str, *, metric: str = "accuracy", part: str | None = None
    ) -> pl.DataFrame:
        """Recommend what to train on to segment a tissue, by the study's strategy.

        Parameters
        ----------
        tissue
            What is to be segmented, such as ``Breast``; it may be one that the results do not know.
        task
            A task's name, such as ``tissuenet-wholecell-2ch``.
        metric
            ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50`` or ``ar75``.
        part
            ``guideline``, the strategy put to the test, in place of the choices.

        Returns
        -------
        The choices, best first: place, train_on, ``expected`` (on this tissue), ``pooled``, ``transferability``,
        methods, reason.

        Raises
        ------
        SegbenchError
            There is no such task with several training tissues.

        Examples
        --------
        >>> import segbench
        >>> choices = segbench.Results.published().training_data("Breast", "tissuenet-nuclear-2ch")
        >>> choices.select("place", "train_on", "pooled").rows()[:2]
        [(1, 'all', 0.73), (2, 'Breast', 0.44)]
        """
        return self._table("training-data", part, tissue=tissue, task=task, metric=metric)

    def learning_curve(self, *, metric: str = "accuracy", gain: float = 0.01, part: str | None = None) -> pl.DataFrame:
        """Return each method's score against the images that it was trained on, of grids with ``train_images``.

        Parameters
        ----------
        metric
            ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50`` or ``ar75``.
        gain
            Annotating twice as much pays while it brings at least so much.
        part
            ``fits``, the curves with their ceilings and stopping points, in place of the scores.

        Returns
        -------
        Per task, method, training tissue and size: images, cells, ``score`` (mean over seeds), ``low`` and ``high``
        over seeds, runs.

        Raises
        ------
        SegbenchError
            There is no such metric or part, or ``gain`` is not between 0 and 1.
        """
        return self._table("learning-curve", part, metric=metric, gain=gain)

    def robustness(self, *, metric: str = "accuracy", part: str | None = None) -> pl.DataFrame:
        """Return each method's score on degraded test images, of runs that were tried with them.

        Parameters
        ----------
        metric
            ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50`` or ``ar75``.
        part
            ``methods``, the one number of each method, in place of the curves.

        Returns
        -------
        A row a task, method, training tissue, kind and step: ``score`` and ``kept`` (of ``clean``, the score on the
        images as they are), with 95 % intervals.

        Raises
        ------
        SegbenchError
            There is no such metric or part.
        """
        return self._table("robustness", part, metric=metric)

    def modality(self, *, metric: str = "accuracy") -> pl.DataFrame:
        """Compare models of nuclear images on whole-cell images, and back, with models of the same modality.

        Parameters
        ----------
        metric
            ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50`` or ``ar75``.

        Returns
        -------
        Per method, target and test tissue: ``cross`` (on the other target's images), ``same`` (trained on them),
        ``change`` = cross - same with its 95 % interval, and ``own``.

        Raises
        ------
        SegbenchError
            There is no such metric.
        """
        return self._table("modality", None, metric=metric)

    def dilation(self, *, metric: str = "map", fixed_um: float = 15.0, part: str | None = None) -> pl.DataFrame:
        """Return how far to dilate nuclei into cells, and to erode cells into nuclei, per method and tissue.

        Parameters
        ----------
        metric
            ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50`` or ``ar75``.
        fixed_um
            A radius in micrometres to judge; Xenium uses 15.
        part
            ``curves``, the metric against the radius, in place of the best radii.

        Returns
        -------
        Per method, pair of tasks and test tissue: ``at_zero``, ``best_radius`` (pixels) and ``best_radius_um``,
        ``gain``, and what one radius for all (``fixed_loss``) and ``fixed_um`` (``um_loss``) cost.

        Raises
        ------
        SegbenchError
            There is no such metric or part, or ``fixed_um`` is not a positive number.
        """
        return self._table("dilation", part, metric=metric, fixed_um=fixed_um)

    def diagnosis(self, *, metric: str = "ap50", part: str | None = None) -> pl.DataFrame:
        """Return what a lost point is made of: missed, split, merged and spurious cells, and loose outlines.

        Parameters
        ----------
        metric
            ``ap50``, ``ap75`` or ``map``.
        part
            In place of the shares: ``cells`` (what became of true cells by size and density, and their outlines),
            ``calibration`` (how often predictions of a score are right), ``bias`` (in count and size) or ``experts``
            (how far two experts agree).

        Returns
        -------
        Per method, task and test tissue ``score``, ``gap`` = 1 - score, and the gap's shares ``missed``, ``split``,
        ``merged``, ``spurious`` and ``loose``, which add up to it; ``largest`` names the greatest.

        Raises
        ------
        SegbenchError
            There is no such metric or part.

        Examples
        --------
        >>> import segbench
        >>> experts = segbench.Results.published().diagnosis(part="experts")
        >>> experts.select("truth", "scored", "score", "merged", "split").rows()[0]
        ('expert1', 'expert2', 0.1539, 0.374, 0.0038)
        """
        return self._table("diagnosis", part, metric=metric)

    def recommend(
        self,
        tissue: str = "all",
        *,
        target: str | None = None,
        channels: int | None = None,
        images: str | None = None,
        dataset: str | None = None,
        gpu_hours: float | None = None,
        gpus: int | None = None,
        metric: str = "accuracy",
        part: str | None = None,
    ) -> pl.DataFrame:
        """Recommend a method for a tissue, channels and a budget; from the published scores where there are no results.

        Parameters
        ----------
        tissue
            What is to be segmented; ``all`` for nothing in particular.
        target
            ``wholecell`` (or ``cell``, the same) or ``nuclear``; None for what the results are of.
        channels
            Channels that the images have, whatever they are called; None for as many as the results have.
        images
            ``fluorescence`` or ``phase``; None for what the results are of.
        dataset
            Use the scores of this dataset only.
        gpu_hours
            GPU hours that training may take; None for no limit.
        gpus
            GPUs there are: with 0, only what was measured without one fits; None for no limit.
        metric
            ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50`` or ``ar75``.
        part
            ``guideline`` (the study's, put to the test) or ``leads`` (of the first over the others) instead.

        Returns
        -------
        One row a method, those within the budget first, best first: place, fits, method, task, train_on, score with its
        interval, scored_on, gpu_hours, gpus, hours, what was ``better_on`` than the guideline's choice, reason.

        Raises
        ------
        SegbenchError
            An argument is not one of what it may be.

        Examples
        --------
        >>> import segbench
        >>> choices = segbench.Results.published().recommend("Breast", gpus=1, gpu_hours=40)
        >>> choices.select("place", "method", "train_on", "score").rows()[:2]
        [(1, 'cellpose', 'all', 0.7), (2, 'mesmer', 'all', 0.44)]
        """
        return self._table(
            "recommend",
            part,
            tissue=tissue,
            target=target,
            channels=channels,
            images=images,
            dataset=dataset,
            gpu_hours=gpu_hours,
            gpus=gpus,
            metric=metric,
        )

    def report(
        self,
        path: str | PathLike[str] | None = None,
        *,
        title: str | None = None,
        sections: Sequence[str] = (),
        compare: str | PathLike[str] | None = None,
        with_published: bool = False,
        static: bool = False,
    ) -> Path:
        """Write the results as one HTML file that needs no server and no network, and return where it lies.

        Parameters
        ----------
        path
            The file to write; ``report.html`` in the folder where None. With ``static``, a folder.
        title
            Stands above the report; the folder's name where None.
        sections
            Only these sections, in this order.
        compare
            Another results folder, or its store's file, to show beside this one.
        with_published
            Show the published scores beside these.
        static
            Write a static site (``index.html`` and its files) instead.

        Raises
        ------
        SegbenchError
            There are no results, a section is unknown, or the file cannot be written.
        """
        from segbench.analysis.report import build_report, write_report, write_site

        folder = self._own_folder("report")
        if static and path is None:
            raise SegbenchError("path is missing: name the folder of the static site")
        target = folder.report if path is None else Path(path)
        beside = None if compare is None else Path(compare)
        built = build_report(folder, title, sections, beside, with_published, linked=static)
        if static:
            write_site(built, target)
            return target / "index.html"
        write_report(built, target)
        return target

    def figures(self) -> pl.DataFrame:
        """Return the names and titles of the report's figures for which there are data, for `plot`."""
        import polars as pl

        from segbench.analysis.report.drawing import plots
        from segbench.analysis.report.model import Source as ReportSource

        found = plots(ReportSource(self._own_folder("figures"))).values()
        rows = [{"name": plot.name, "title": plot.figure.title} for plot in found]
        return pl.DataFrame(rows, schema={"name": pl.String, "title": pl.String})

    def plot(
        self,
        name: str,
        path: str | PathLike[str],
        *,
        metric: str = "accuracy",
        train: str = "all",
        width: str = "double",
    ) -> Path:
        """Draw one figure of the report into a file, without a browser, and return where it lies.

        Parameters
        ----------
        name
            One of `figures`, such as ``accuracy`` or ``time-3``.
        path
            Ends in .svg, .png (300 dots an inch) or .pdf; .html writes the figure's section.
        metric
            For figures that can show several.
        train
            The training tissue, for figures that show one.
        width
            ``single`` or ``double``: as wide as one column of a journal's page, or as both (89 and 183 mm).

        Raises
        ------
        SegbenchError
            There is no such figure, metric, width or format, there is nothing to draw, or the file cannot be written.
        """
        from segbench.analysis.report.drawing import check_format, draw, find_plot, write_section
        from segbench.analysis.report.model import Source as ReportSource

        folder, target = self._own_folder("plot"), Path(path)
        check_format(target)
        if target.suffix.lower() == ".html":
            write_section(folder, name, target)
        else:
            draw(find_plot(ReportSource(folder), name), target, metric, train, width)
        return target

    def _table(self, name: str, part: str | None, **options: Any) -> pl.DataFrame:
        answer = self.analyse(name, **options)
        table = answer.table if part is None else answer.part(part)
        for sentence in answer.warnings:
            warnings.warn(f"{name}: {sentence}", ResultsWarning, stacklevel=3)
        return table

    def _own_folder(self, what: str) -> ResultsFolder:
        if self._out is None:
            raise SegbenchError(f"the published scores have no {what}: ask Results(folder)")
        return self._out

    def __repr__(self) -> str:
        return "Results.published()" if self._out is None else f"Results({str(self._out)!r})"
