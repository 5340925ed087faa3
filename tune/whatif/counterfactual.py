"""What would these policies have earned on this log? Passes over its events, in memory bounded by a budget.

1. *Survey*: events, propensities, rewards, what each item earned (for popularity), a sample for a feature map.
2. *Reward model*, where an estimator needs one: ridge on that map, cross-fitted by user (tune.offpolicy.cross_fit).
3. *Policies*: each says its probabilities for every event, in time order; every estimator adds up its terms by user.

A policy that learns is told the logged reward after it was asked: progressive replay, with the estimator's weights in
the place of rejection (Dudík, Erhan, Langford, Li 2012, "Sample-efficient nonstationary policy evaluation").

Shapes: N events of a block, K candidates (padded), D features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from cluster.config import Settings
from cluster.errors import EvidenceError
from cluster.records import EVENTS, decode
from cluster.registry import Registry
from tune.groundwork import check_kinds, check_rewards
from tune.log import Log, read
from tune.offpolicy.cross_fit import Moments, Ridge, folds_of
from tune.offpolicy.streaming import Roster
from tune.offpolicy.terms import MODELLED, Method
from tune.offpolicy.totals import Totals
from tune.split import unit
from tune.whatif.answers import Answer, Bounds, answer, model_alone, on_policy
from tune.whatif.block import Block, Policy
from tune.whatif.judged import Judged
from tune.whatif.policies import Counts, Ground

BUDGET_BYTES = 64 * 2**20
"""Memory of what is computed of a block's candidates."""
NUMBERS = 8
"""Numbers held of a candidate while a policy is asked and scored."""
FIT_ROWS = 20_000
"""Events at most that the reward model's feature map is fitted on, drawn by a hash of their ids."""
GROUPS = 50

WITH: tuple[Method, ...] = ("dr", "snips")
WITHOUT: tuple[Method, ...] = ("dm",)
"""Estimators by default, with propensities and without."""

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class Question:
    """policies: forms of tune.whatif.policies. methods: estimators, none for dr and snips, or dm without propensities.

    learn: whether policies that can learn do so along the log. group: a column of events or a key of the context by
    whose values answers are given, None for one answer. registry_name: of the versions that are asked about.
    """

    policies: tuple[str, ...]
    methods: tuple[Method, ...] = ()
    bounds: Bounds = field(default_factory=Bounds)
    learn: bool = False
    group: str | None = None
    registry_name: str = "medley"


@dataclass(frozen=True)
class Answers:
    """logged: what the log earned, of each group. rows: of each group, policy and estimator. remarks: by policy, what
    begins the notes of all its rows."""

    events: int
    missing: int
    logged: list[Answer]
    rows: list[Answer]
    remarks: dict[str, str] = field(default_factory=dict)


def ask(
    judged: Judged, question: Question, settings: Settings, progress: Progress = lambda done, total: None
) -> Answers:
    """Raises EvidenceError, ModelError or RequestError for what cannot be asked of this log; see the parts."""
    log = _Log(judged, settings)
    counts = Counts(len(log.items), settings.seed)
    ground = Ground(
        judged.about.items,
        Registry(settings.registry_uri),
        question.registry_name,
        settings.seed,
        question.learn,
        counts,
        judged.about.encoder,
        judged.overlap,
    )
    policies = [ground.policy(text) for text in dict.fromkeys(question.policies)]
    survey = Survey.of(log, counts)
    methods = tuple(dict.fromkeys(question.methods)) or (WITHOUT if survey.missing else WITH)
    survey.need_propensities(methods)
    model = _Model.fitted(log, survey.sample) if any(method in MODELLED for method in methods) else None
    groups: dict[str, _Group] = {}
    for block in log.blocks((model.map.dimension if model else 0) + NUMBERS * len(policies)):
        q_NK = model.q(block) if model else None
        policy_PNK = [policy.probabilities(block) for policy in policies]
        for name, rows in _grouped(block.events, question.group):
            group = groups.setdefault(name, _Group(len(policies), methods))
            group.add(block, policy_PNK, q_NK, rows)
        if len(groups) > GROUPS:
            raise EvidenceError(f"--group-by {question.group}: more than {GROUPS} values; group by what has fewer")
        progress(block.first + len(block.log), survey.events)
    if question.group not in EVENTS.names and set(groups) == {f"{question.group}=None"}:
        raise EvidenceError(f"--group-by {question.group}: no column of events, and no context has such a key")
    return _answers(groups, policies, methods, question.bounds, survey, settings)


class _Log:
    """The judged events as blocks."""

    def __init__(self, judged: Judged, settings: Settings):
        self.judged, self.settings = judged, settings
        self.items = tuple(judged.about.items["item_id"].to_pylist())

    def blocks(self, dimension: int) -> Iterator[Block]:
        """Blocks whose candidates, with this many numbers each, stay within the budget."""
        first = 0
        for table in self.judged.events():
            check_rewards(table, self.settings)
            step = max(1, BUDGET_BYTES // (8 * dimension * self._widest(table)))
            for start in range(0, len(table), step):
                events = table.slice(start, step)
                yield Block(events, self._read(events, first), self.items, first, self.settings.reward)
                first += len(events)

    def _widest(self, events: pa.Table) -> int:
        lists = events["candidates"]
        given = pc.max(pc.list_value_length(lists)).as_py() or 1
        return max(given, len(self.items)) if lists.null_count else int(given)

    def _read(self, events: pa.Table, first: int) -> Log:
        try:
            return read(events, self.items, self.settings.reward)
        except EvidenceError as error:
            raise EvidenceError(f"of the events from {first:,} on, {error}") from error


@dataclass(frozen=True)
class _Model:
    """A reward model of the log, cross-fitted by user, on a feature map of its own."""

    map: FeatureMap
    ridge: Ridge
    seed: int

    @classmethod
    def fitted(cls, log: _Log, sample: pa.Table) -> "_Model":
        """The map of a sample, then one pass over the features of what was done."""
        about, settings = replace(log.judged.about, events=sample), log.settings
        found = FeatureMap.fit(about, np.arange(len(sample)), settings.features, settings.seed)
        moments = Moments(found.arms)
        for block in log.blocks(found.dimension):
            alone = _alone(block.events)
            done = read(alone, log.items, settings.reward)
            moments.add(done, found.batch(alone), folds_of(alone, seed=settings.seed))
        return cls(found, moments.fit(), settings.seed)

    def q(self, block: Block) -> Floats:
        """Every candidate's expected reward, (N, K)."""
        return self.ridge.q(self.map.batch(block.events), folds_of(block.events, seed=self.seed))


def _alone(events: pa.Table) -> pa.Table:
    """The events with nothing but the logged item to choose from: a model is fitted on no other features."""
    item = events["item_id"].combine_chunks()
    alone = pa.ListArray.from_arrays(pa.array(np.arange(len(item) + 1), pa.int32()), item)
    return events.set_column(events.schema.get_field_index("candidates"), "candidates", alone)


@dataclass
class Survey:
    """missing: how many events lack a propensity, and first_missing the id of the first. sample: for a feature map.
    kinds: of reward, in all tables."""

    sample: pa.Table
    events: int = 0
    missing: int = 0
    first_missing: str = ""
    kinds: set[str] = field(default_factory=set)
    _share: float = 1.0

    @classmethod
    def of(cls, log: _Log, counts: Counts) -> "Survey":
        """Raises EvidenceError where there is no event, or rewards are of several kinds."""
        seed = log.settings.seed
        survey = cls(EVENTS.empty_table())
        for block in log.blocks(NUMBERS):
            survey.kinds.update(block.events["reward_kind"].unique().drop_null().to_pylist())
            check_kinds(survey.kinds)
            counts.add(block)
            survey.events += len(block.log)
            survey._propensities(block.events)
            survey._keep(block.events, seed)
        if not survey.events:
            raise EvidenceError("no event to ask about; import more data, or take another --part")
        return survey

    def _propensities(self, events: pa.Table) -> None:
        lacking = events.filter(pc.is_null(events["propensity"]))
        if len(lacking) and not self.missing:
            self.first_missing = lacking["event_id"][0].as_py()
        self.missing += len(lacking)

    def _keep(self, events: pa.Table, seed: int) -> None:
        self.sample = pa.concat_tables([self.sample, _below(events, self._share, seed)])
        while len(self.sample) > FIT_ROWS:
            self._share /= 2
            self.sample = _below(self.sample, self._share, seed)

    def need_propensities(self, methods: Sequence[Method]) -> None:
        """Raises EvidenceError where a method needs what some event lacks."""
        needing = [method for method in methods if method != "dm"]
        if needing and self.missing:
            raise EvidenceError(
                f"{needing[0]} needs the propensity of every logged action, and {self.missing:,} of {self.events:,} "
                f"events have none, {self.first_missing} the first; map the column that holds them, leave those events "
                "out, or use --estimator dm"
            )


def _below(events: pa.Table, share: float, seed: int) -> pa.Table:
    if share == 1:
        return events
    return events.filter(pa.array(unit(events["event_id"].combine_chunks(), seed, "what-if") < share))


class _Group:
    """The events of one group: their users and every policy's sums."""

    def __init__(self, policies: int, methods: Sequence[Method]):
        self.totals = [Totals(methods) for _ in range(policies)]
        self._roster = Roster()

    def add(self, block: Block, policy_PNK: list[Floats], q_NK: Floats | None, rows: Ints) -> None:
        whole = len(rows) == len(block.log)
        log = block.log if whole else block.log.take(rows)
        user_N = self._roster.codes(block.events if whole else block.events.take(pa.array(rows)))
        for totals, policy_NK in zip(self.totals, policy_PNK, strict=True):
            totals.add(user_N, log, policy_NK[rows], None if q_NK is None else q_NK[rows])


def _grouped(events: pa.Table, by: str | None) -> Iterator[tuple[str, Ints]]:
    """The rows of each group of a block."""
    if by is None:
        yield "", np.arange(len(events))
        return
    if by in events.column_names:
        values = [str(value) for value in events[by].to_pylist()]
    else:
        values = [str(decode(pairs).get(by)) for pairs in events["context"].to_pylist()]
    names, code_N = np.unique(values, return_inverse=True)
    for code, name in enumerate(names.tolist()):
        yield f"{by}={name}", np.flatnonzero(code_N == code)


def _answers(
    groups: dict[str, _Group],
    policies: list[Policy],
    methods: Sequence[Method],
    bounds: Bounds,
    survey: Survey,
    settings: Settings,
) -> Answers:
    low, high = settings.reward.low, settings.reward.high
    logs, rows = [], []
    for name, group in sorted(groups.items()):
        logs.append(replace(on_policy(group.totals[0], bounds), group=name).scaled(low, high))
        for policy, totals in zip(policies, group.totals, strict=True):
            for method in methods:
                found = answer(totals, method, bounds)
                told = found.note if totals.known else model_alone(survey.missing, survey.events)
                note = "; ".join(filter(None, (policy.remark(), told)))
                named = replace(found, policy=policy.name, learns=policy.learns, group=name, note=note)
                rows.append(named.scaled(low, high))
    remarks = {policy.name: policy.remark() for policy in policies}
    return Answers(survey.events, survey.missing, logs, rows, remarks)
