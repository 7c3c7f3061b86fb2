"""The whole of a run, cut into tasks that several processes share.

A task is one operator on one rule, or one correct rule in one dtype with one seed. Each process
imports the corpus and makes the mutants itself, for functions cannot be sent from one to another.
A mutant may bring its process down or keep it for ever, and then is a survivor by name; another
process takes the task up where it was left.
"""

import functools
import itertools
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait

import jax

from ...errors import FnnError
from .corpus import UNMADE, Corpus, draw, group, load
from .trial import CleanTrial, Trial, blank, said, try_clean, try_mutant

TIMED = ("float32", 0)
"""The dtype and seed at which a correct rule is timed."""
PATIENCE = 600.0
"""Seconds after which a trial is given up."""

Some = Trial | CleanTrial


@dataclass(frozen=True)
class Plan:
    """What to run: part number `part` of the `parts` that the trials are dealt out to.

    With `sample`, an operator goes into few of the rules, and into each of them once.
    """

    corpus: str
    rules: tuple[str, ...]
    operators: tuple[str, ...]
    dtypes: tuple[str, ...] = ()
    seeds: int = 0
    compare: bool = False
    part: int = 0
    parts: int = 1
    sample: bool = False

    def takes(self, *names: object) -> bool:
        """Whether a trial is in this part: dealt by its name, it stays there as tables grow."""
        return draw(*names) % self.parts == self.part


@dataclass(frozen=True)
class Task:
    """Some trials of one rule: with `operator`, its mutants, or the one with the `label`."""

    rule: str
    operator: str = ""
    label: str = ""
    dtype: str = ""
    seed: int = 0


def tasks(plan: Plan) -> list[Task]:
    """List a plan's tasks, those of a rule side by side: they share what is compiled for it."""
    runs = dict.fromkeys([TIMED, *itertools.product(plan.dtypes, range(plan.seeds))])
    mutants = _sampled(plan) if plan.sample else itertools.product(plan.rules, plan.operators)
    faulty: dict[str, list[Task]] = {rule: [] for rule in plan.rules}
    for rule, operator, *label in mutants:
        faulty[rule].append(Task(rule, operator, "".join(label)))
    found = []
    for rule in plan.rules:
        found += [Task(rule, "", "", *run) for run in runs if plan.takes(rule, *run)]
        found += faulty[rule]
    return found


def _sampled(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Yield rule, operator and label of what a sample has in this part."""
    corpus = load(plan.corpus)
    for operator in plan.operators:
        for rule, label in corpus.sample(plan.rules, operator):
            if plan.takes(rule, operator, label):
                yield rule, operator, label


class Worker:
    """One process's corpus, and the rule that it works on."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.corpus: Corpus = load(plan.corpus)
        self.rule = ""

    def trials(self, task: Task) -> Iterator[tuple[Some, Callable[[], Some]]]:
        """Yield a task's trials: what each is, and a function that carries it out."""
        if task.rule != self.rule:
            jax.clear_caches()  # programs of the rules before, which nobody will call again
            self.rule = task.rule
            self.function = self.corpus.rules[task.rule].build()
        if task.operator:
            yield from self._mutants(task)
            return
        rule, run = self.corpus.rules[task.rule], (task.dtype, task.seed)
        timed, compare = run == TIMED, self.plan.compare
        yield (
            CleanTrial(task.rule, *run),
            lambda: try_clean(rule, *run, timed, compare, self.function),
        )

    def _mutants(self, task: Task) -> Iterator[tuple[Some, Callable[[], Some]]]:
        names = task.rule, task.operator
        try:
            made = list(self.corpus.mutants(*names))
        except Exception as error:
            fault, why = self.corpus.operators[task.operator], f"not made: {said(error)}"
            trial = Trial(*names, UNMADE, group(fault), fault.defects, "", error=why)
            if self.plan.takes(*names, UNMADE):
                yield trial, lambda: trial
            return
        for mutant in made:
            wanted = task.label in ("", mutant.label)
            if wanted and self.plan.takes(*names, mutant.label):
                reason = self.corpus.reason(*names, mutant.label)
                run = functools.partial(try_mutant, mutant, reason, self.plan.compare)
                yield blank(mutant, reason), run


def carry_out(plan: Plan, todo: Sequence[Task], jobs: int) -> Iterator[list[Some]]:
    """Yield the trials of each task as it is done, by `jobs` processes, or with 1 by this one."""
    if jobs > 1:
        yield from _shared(plan, todo, jobs)
        return
    worker = Worker(plan)
    for task in todo:
        yield [run() for _, run in worker.trials(task)]


def _serve(connection: Connection, plan: Plan) -> None:
    """Do the tasks that come: send what each trial is, then what came of it; None ends a task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, interrupted too, ends this process
    worker = Worker(plan)
    while True:
        task, done = connection.recv()
        for trial, run in itertools.islice(worker.trials(task), done, None):
            connection.send((False, trial))
            connection.send((True, run()))
        connection.send((True, None))


class _Job:
    """A process and the task that it is at."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.plan), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        """Set a task."""
        self.task, self.done = task, list[Some]()
        self._ask()

    def _ask(self) -> None:
        self.at: Some | None = None
        self.since = time.monotonic()
        self.connection.send((self.task, len(self.done)))

    def hear(self) -> bool:
        """Take in a message; return whether the task is done."""
        try:
            finished, trial = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            self.give_up(f"its process died, exit code {self.process.exitcode}")
            return False
        self.since = time.monotonic()
        if not finished:
            self.at = trial
        elif trial:
            self.done.append(trial)
        return finished and not trial

    def give_up(self, why: str) -> None:
        """Leave the trial that the process is at, and go on in another process."""
        if self.at is None:
            raise FnnError(f"at {self.task}: {why}")
        self.end()
        self.done.append(replace(self.at, error=why))
        self._start()
        self._ask()

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _shared(plan: Plan, todo: Sequence[Task], jobs: int) -> Iterator[list[Some]]:
    waiting = deque(todo)
    crew = [_Job(plan) for _ in range(min(jobs, len(waiting)))]
    try:
        busy = list(crew)
        for job in crew:
            job.give(waiting.popleft())
        while busy:
            ready = wait([job.connection for job in busy], timeout=1.0)
            for job in list(busy):
                if job.connection not in ready:
                    if time.monotonic() - job.since > PATIENCE:
                        job.give_up(f"no answer within {PATIENCE:.0f} s")
                elif job.hear():
                    yield job.done
                    if waiting:
                        job.give(waiting.popleft())
                    else:
                        busy.remove(job)
    finally:
        for job in crew:
            job.end()
