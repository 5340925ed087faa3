"""An explanation on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tune.explanation import Explanation, Moved


def show_all(every: Sequence[Explanation]) -> None:
    """A line for each candidate of a version."""
    table = Table("candidate", "users", "made for", "moves most", "against the best there", "95 % interval")
    for each in every:
        low, high = each.about["interval"]
        most = each.features[0] if each.features else None
        table.add_row(
            each.candidate,
            f"{each.about['users']:,} of {each.users:,}",
            escape(each.about["text"]),
            f"{escape(most.name)} {_signed(most.effect)}" if most else "nothing",
            f"{_signed(each.about['difference'])} ({each.about['against']})",
            f"{_signed(low)} to {_signed(high)}",
        )
    console = _console()
    console.print(table)
    _refused(console, every[0])


def show(found: Explanation) -> None:
    """Everything of one candidate."""
    console, about = _console(), found.about
    low, high = about["interval"]
    console.print(f"{found.candidate}, made for {about['users']:,} of {found.users:,} users whose context is like")
    console.print(f"  {about['text']}", markup=False)
    console.print(
        f"There it is worth {about['value']:.4f} a decision, {_signed(about['difference'])} against {about['against']}"
        f" ({_signed(low)} to {_signed(high)}, 95 %).",
        f"Between such users an item's expected reward varies by {found.spread:.4f}, it says; the pooled model is sure "
        f"of the mean user's up to {found.pooled_spread:.4f}.",
        f"Priors start from {found.scale:.2f} times the pooled mean; what the context changed of that:",
        sep="\n",
    )
    _refused(console, found)
    if found.range != (0.0, 1.0):
        console.print("Rewards are scaled: 0 stands for {:g}, 1 for {:g}.".format(*found.range))
    console.print(_table("feature", "weight: pooled", "here", "reward moved", found.features))
    console.print(_table("item", "expected: pooled", "here", "moved by", found.items))


def _refused(console: Console, found: Explanation) -> None:
    if found.refused:
        console.print(f"The gate did not admit this member, so nobody is served by it: {found.refused}.", markup=False)


def _table(name: str, before: str, after: str, effect: str, rows: Sequence[Moved]) -> Table:
    table = Table(name)
    for column in (before, after, effect):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(escape(row.name), _minus(row.before), _minus(row.after), _signed(row.effect))
    return table


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _minus(value: float) -> str:
    return f"{value:.4f}".replace("-", "−")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=False)
