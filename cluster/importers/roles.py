"""Which column plays which part.

What is said by mapping stands; the rest is guessed from usual names, letter case and punctuation aside.
Columns that play no part and are not excluded become context.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from cluster.errors import SchemaError
from cluster.importers.expressions import Expression, listed, unknown_column
from cluster.importers.imported import Options
from cluster.importers.names import nearest, plain
from cluster.importers.numerals import number
from cluster.importers.source import Source
from cluster.importers.telling import counts_rows

_INDEX = ("index", "idx", "row", "rowid", "rowname", "rownames", "rownumber", "level0", "unnamed", "unnamed0")
"""What a saved index is called, by `plain`."""


@dataclass(frozen=True)
class Role:
    """A part that a column may play: our name, the usual names (the first found wins), whether it must be there."""

    name: str
    usual: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True)
class Roles:
    """expressions: by our name; context: the other columns, in the file's order; notes: what looks misspelt.

    placed: of these, what each that was said to be so is of: `context` or `item`.
    """

    expressions: dict[str, Expression]
    context: tuple[str, ...]
    notes: tuple[str, ...] = ()
    placed: dict[str, str] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.expressions

    def column(self, name: str, table: pa.Table) -> pa.ChunkedArray | None:
        """Values of a role, None where no column plays it."""
        expression = self.expressions.get(name)
        return None if expression is None or expression.kind == "all" else expression.evaluate(table)

    def report(self) -> dict[str, str]:
        told = {name: str(expression) for name, expression in self.expressions.items()}
        return {**told, "context": ", ".join(self.context)}


def resolve(source: Source, roles: Sequence[Role], options: Options, log: bool = True) -> Roles:
    """Assign the columns of a source.

    Args:
        source, roles, options: the columns, the parts they may play, and what was said of them.
        log: whether rows are events. Among items and users a column that counts the rows may be a rank: there only
            one that is called an index is left out, and nothing can be mapped.

    Raises:
        SchemaError: an option names an unknown role or column, or a required role has no column; the message
            suggests the nearest name.
    """
    columns = source.table.column_names
    placed = _placed(source, roles, options)
    expressions = _said(source, roles, options)
    used = {c for e in expressions.values() if e.kind == "column" for c in e.columns}
    if "timestamp" in expressions and expressions["timestamp"].kind == "join":
        used.update(expressions["timestamp"].columns)
    unused = [c for c in columns if c not in used and c not in options.exclude]
    free = [c for c in unused if c not in placed]
    for role in roles:
        if role.name in expressions:
            continue
        by_plain = {plain(c): c for c in reversed(free)}
        found = next((by_plain[u] for u in map(plain, (role.name, *role.usual)) if u in by_plain), None)
        if found is not None:
            expressions[role.name] = Expression("column", (found,))
            free.remove(found)
        elif role.required:
            raise SchemaError(_missing(source.name, role, free))
    notes = [_suspicion(role, free) for role in roles if log and role.name not in expressions]
    counting = [c for c in free if (log or plain(c) in _INDEX) and counts_rows(source, c)]
    notes += [f"column {c!r} counts the rows of {source.name}, as a saved index does: it is left out" for c in counting]
    return Roles(
        {r.name: expressions[r.name] for r in roles if r.name in expressions},
        tuple(c for c in unused if c in placed or (c in free and c not in counting)),
        tuple(filter(None, notes)),
        placed,
    )


def _placed(source: Source, roles: Sequence[Role], options: Options) -> dict[str, str]:
    """Columns of which `--map context.a=a` or `--map item.a=a` says what they are of, where roles know a context."""
    found: dict[str, str] = {}
    for ours, theirs in options.mapping.items():
        place, dot, name = ours.partition(".")
        if not dot or place not in ("context", "item") or all(role.name != "context" for role in roles):
            continue
        if theirs not in source.table.column_names:
            raise SchemaError(f"--map {ours}={theirs}: {unknown_column(theirs, source.table.column_names)}")
        if name != theirs:
            raise SchemaError(f"--map {ours}={theirs}: the column keeps its name; say --map {place}.{theirs}={theirs}")
        found[theirs] = place
    return found


def _said(source: Source, roles: Sequence[Role], options: Options) -> dict[str, Expression]:
    columns, known = source.table.column_names, [role.name for role in roles]
    for name in (*options.exclude, *([options.client] if options.client else [])):
        if name not in columns:
            raise SchemaError(f"{source.name}: {unknown_column(name, columns)}")
    expressions: dict[str, Expression] = {}
    placed = [f"{place}.{column}" for column in _placed(source, roles, options) for place in ("context", "item")]
    for ours, theirs in options.mapping.items():
        if ours in placed:
            continue
        if ours not in known:
            near = nearest(ours, known)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
            raise SchemaError(f"--map {ours}={theirs}: unknown name {ours!r}; {hint}")
        expressions[ours] = expression = Expression.parse(theirs, columns, ours)
        if (expression.kind == "all") and ours != "candidates":
            raise SchemaError(f"--map {ours}={theirs}: all() is for candidates only")
    if options.client:
        expressions["client_id"] = Expression("column", (options.client,))
    return expressions


def _missing(name: str, role: Role, free: Sequence[str]) -> str:
    near = next(filter(None, (nearest(usual, free, 0.7) for usual in (role.name, *role.usual))), None)
    hint = f"the nearest is {near!r}" if near else f"columns: {listed(free)}"
    if any(number(column) is not None for column in free):
        hint += "; a name is a number: does the first line hold the names of the columns?"
    return f"{name}: no column for {role.name}; {hint}; say --map {role.name}={near or 'COLUMN'}"


def _suspicion(role: Role, free: Sequence[str]) -> str | None:
    near = next(
        filter(None, (nearest(usual, free, 0.85) for usual in (role.name, *role.usual) if len(usual) > 4)), None
    )
    if near is None:
        return None
    return f"column {near!r} is read as context; if it is the {role.name}, say --map {role.name}={near}"
