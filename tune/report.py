"""report.html of a run: what it earned, how it learned, what was generated, admitted, spent and left out.

    python -m tune.report --run FOLDER --out report.html

Reads what the stages left (compose.json, drive.json, and where there were any refine.json, rehearse.json, regroup.json
with regroup.png, and ppo.json with ppo.png). A part that is not there is named, with the reason.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from cluster.errors import MedleyError, StateError
from tune import page, plots, upkeep
from tune.blending import reported as ppo
from tune.regrouping import reported as regrouped

LABELS = {
    "uniform": "uniform",
    "popularity": "popularity",
    "pooled_linear": "pooled linear",
    "best_predefined": "best predefined",
    "ensemble": "ensemble",
}
Facts = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tune.report", description="Write report.html of a run.")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    options = parser.parse_args()
    try:
        write(options.run, options.out)
    except MedleyError as error:
        sys.exit(f"report: {error}")
    print(json.dumps({"report": str(options.out.absolute())}))


def write(run: Path, out: Path) -> None:
    """Write the report of a run folder, aside and then renamed.

    Raises StateError where the folder is not there, a file in it is no JSON, or `out` cannot be written.
    """
    if not run.is_dir():
        raise StateError(f"{run}: no such run folder; start one with `medley run`")
    stages = {name: read(run / f"{name}.json") for name in ("compose", "drive", "refine", "rehearse")}
    tree = run / "regroup.png"
    grouped = regrouped.sections(read(run / "regroup.json"), tree.read_bytes() if tree.is_file() else None)
    curve = run / "ppo.png"
    blended = ppo.sections(read(run / "ppo.json"), curve.read_bytes() if curve.is_file() else None)
    upkept = [*upkeep.sections(stages["refine"], stages["rehearse"]), *grouped, *blended]
    text = render(run.absolute().name, stages["compose"], stages["drive"], upkept)
    aside = out.with_name(out.name + ".partial")
    try:
        aside.write_text(text)
        aside.replace(out)
    except OSError as error:
        raise StateError(f"{out}: cannot write the report ({error}); give another --out") from error


def read(path: Path) -> Facts:
    """A stage's facts; empty where the stage did not get that far."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StateError(f"{path}: cannot be read ({error}); run `medley run` again") from error
    if not isinstance(found, dict):
        raise StateError(f"{path}: expected an object, found {type(found).__name__}; run `medley run` again")
    return found


def render(name: str, composed: Facts, driven: Facts, upkept: Sequence[str] = ()) -> str:
    """The page of a run; `upkept` are sections on what became of a version in service."""
    return page.document(f"Medley run {name}", _body(name, composed, driven, upkept))


def _body(name: str, composed: Facts, driven: Facts, upkept: Sequence[str]) -> Iterator[str]:
    yield f"<header><h1>Medley run</h1>{page.say(name)}</header>"
    yield from upkept
    if not composed and not driven and upkept:
        return
    yield from _headline(driven)
    yield page.section("Reward", *_reward(driven))
    if world := driven.get("world"):
        yield page.section("The world that answered", *_world(world))
    yield page.section("Learning", *_learning(driven))
    yield page.section("Weights", *_weights(driven))
    yield page.section("Candidates", *_candidates(composed))
    yield page.section("Admission", *_admission(composed))
    yield page.section("Time spent", *_stages(composed, driven))
    yield page.section("Data", *_data(composed, driven))


def _headline(driven: Facts) -> Iterator[str]:
    if "policies" not in driven:
        yield page.missing("This run stopped before it had figures: no traffic was driven to its end.")
        return
    ours, difference = driven["policies"]["ensemble"], driven["difference"]
    best = difference["best_predefined"]
    yield f'<p class="lead">{_verdict(best, _best_name(driven))}</p>'
    yield page.tiles(
        [
            ("reward per 1,000 decisions, ensemble", _number(ours["reward_per_1000"])),
            (f"against best predefined{_from_to(best['interval'])}", _signed(best["reward_per_1000"])),
            ("weight on generated models", f"{driven['generated_weight']:.0%}"),
            ("decisions over HTTP", f"{driven['decisions']:,}"),
        ]
    )


def _from_to(interval: list[float | None]) -> str:
    low, high = interval
    return "" if low is None or high is None else f", 95 %: {_signed(low)} to {_signed(high)}"


def _verdict(best: Facts, name: str) -> str:
    low, high = best["interval"]
    against = f"the best predefined model ({name}) on the same situations"
    if low is None:
        said = f"too few users to compare the ensemble with {against}."
    elif low > 0:
        said = f"The ensemble earned more than {against}: the 95 % interval of the difference is above zero."
    elif high < 0:
        said = f"The ensemble earned less than {against}: the 95 % interval of the difference is below zero."
    else:
        said = f"The ensemble earned as much as {against}: the 95 % interval of the difference holds zero."
    return escape(said)


def _best_name(driven: Facts) -> str:
    return str(driven["policies"]["best_predefined"].get("name", "unnamed"))


def _reward(driven: Facts) -> Iterator[str]:
    if "policies" not in driven:
        yield page.missing("No figures: traffic did not run to its end.")
        return
    rows = []
    for policy, label in LABELS.items():
        if policy not in driven["policies"]:
            rows.append((f"{label} (not in this version)", "–", "–", "–"))
            continue
        found, difference = driven["policies"][policy], driven["difference"].get(policy)
        shown = f"{label} ({found['name']})" if "name" in found else label
        expected = _with_interval(found["expected_per_1000"], found["expected_interval"])
        gain = "" if difference is None else _with_interval(difference["reward_per_1000"], difference["interval"], True)
        rows.append((shown, _with_interval(found["reward_per_1000"], found["interval"]), expected, gain))
    head = ("policy", "reward per 1,000", "expected", "ensemble minus this")
    yield page.say(
        "Reward per 1,000 decisions with 95 % intervals by user. Every policy answered the same situations and the "
        "same choice earned the same reward; “expected” takes the luck of the draws out."
    )
    yield page.table(head, rows, numbers=3, strong=[list(LABELS).index("ensemble")])
    for note in driven.get("notes", []):
        yield page.missing(note)


def _world(world: Facts) -> Iterator[str]:
    yield page.say(
        "The log cannot say what other choices would have earned, so a reward model fitted on its held-out part "
        "answered. Here the same fit without a user is compared with what that user did."
    )
    tone = "yes" if world["verdict"] == "trust" else "no"
    yield f'<p><span class="{tone}">Verdict</span>: {escape(world["words"])}.</p>'
    for remark in world["remarks"]:
        yield page.missing(f"{remark[:1].upper()}{remark[1:]}.")
    if not world["means"]:
        return
    yield page.table(("checked", "came", "the world said", "difference"), _checks(world), numbers=3)
    yield plots.fidelity(world)
    yield page.say("Lines are 95 % intervals by user; on the diagonal the world is right.")
    rows = [
        (family["name"], str(len(family["groups"])), f"{family['spread']:.2g}", f"{family['missed']:.2g}")
        for family in world["families"]
    ]
    if rows:
        yield page.table(("means by", "groups", "differ by", "off by, beyond noise"), rows, numbers=3)


def _checks(world: Facts) -> Iterator[tuple[str, str, str, str]]:
    for mean in world["means"]:
        yield mean["name"], f"{mean['real']:.4g}", f"{mean['world']:.4g}", _bounds(mean["difference"])
    if between := world["between_users"]:
        real, said = f"{between['real']:.3f}", f"{between['world']:.3f}"
        yield "correlation of a user's rewards", real, said, _bounds(between["difference"])
    slopes = {"choice_slope": "of a difference between items that it says", "slope": "of any difference that it says"}
    for name, what in slopes.items():
        if world[name]:
            yield f"share that came {what}", _bounds(world[name]), "1", ""
    if world["auc"]:
        yield "AUC", _bounds(world["auc"]), "", ""
    noise = f"{world['calibration_error_of_noise']:.2g} by chance"
    yield "calibration error (ECE)", f"{world['calibration_error']:.2g}", noise, ""


def _bounds(interval: list[float]) -> str:
    value, low, high = interval
    return f"{value:.3g}  [{low:.3g}, {high:.3g}]"


def _learning(driven: Facts) -> Iterator[str]:
    if not driven.get("curves"):
        yield page.missing("No learning curves: traffic did not run to its end.")
        return
    yield page.say("Mean expected reward of all decisions so far; bands are 95 % intervals by user.")
    yield plots.learning(driven["curves"], LABELS)


def _weights(driven: Facts) -> Iterator[str]:
    if not driven.get("weights", {}).get("seconds"):
        yield page.missing("No weights: traffic did not run to its end.")
        return
    generated = driven.get("generated", [])
    yield page.say("How much each model counted in what was answered over HTTP, mean over all clients.")
    if not generated:
        yield page.missing("No generated model is in this version: all weight is on predefined ones.")
    yield plots.weights(driven["weights"], generated)


def _candidates(composed: Facts) -> Iterator[str]:
    rows = composed.get("candidates") or []
    if not rows:
        yield page.missing("No candidate was generated and valued in this run.")
        return
    chosen = sum(bool(row["chosen"]) for row in rows)
    yield page.say(
        f"{len(rows)} generated candidates, {chosen} chosen. Each is valued on the users nearest to its prototype, "
        "against the predefined model that is best there; lines are 95 % intervals by user."
    )
    if len(rows) > plots.MOST:
        yield page.say(f"The best {plots.MOST} are drawn.")
    yield plots.candidates(rows)


def _admission(composed: Facts) -> Iterator[str]:
    gate = composed.get("gate")
    if not gate:
        yield page.missing("The run stopped before the gate.")
        return
    yield page.say(
        "A generated member enters the ensemble only if it beats the best predefined model on users and times that "
        "nothing was fitted or chosen on."
    )
    if gate.get("tested") is None:
        yield page.missing(f"Nothing came before the gate: {gate['reason']}.")
        return
    about = f"{gate['tested']}, against {gate['against']}. "
    if gate.get("test", 1) > 1:
        about += f"Test {gate['test']} on this data, hence at an error rate of {gate['alpha']:.2g}. "
    yield _ruling(bool(gate.get("pooled", gate["admitted"])), about + _sentence(gate))
    for client, own in gate.get("clients", {}).items():
        yield _ruling(own["admitted"], f"client {client}, judged by itself. {_sentence(own)}")


def _ruling(admitted: bool, text: str) -> str:
    word, tone = ("Admitted", "yes") if admitted else ("Not admitted", "no")
    return f'<p><span class="{tone}">{word}</span>: {escape(text)}</p>'


def _sentence(verdict: Facts) -> str:
    said = str(verdict["reason"])
    said = f"{said[:1].upper()}{said[1:]}."
    if verdict.get("events"):
        said += f" Judged on {verdict['events']:,} events of {verdict['users']:,} users."
    if verdict.get("model_based"):
        said += " The log has no propensities, so the evidence rests on a reward model."
    return said


def _stages(composed: Facts, driven: Facts) -> Iterator[str]:
    timings = [*composed.get("timings", []), *driven.get("timings", [])]
    if not timings:
        yield page.missing("No stage finished.")
        return
    rows = [
        (
            timing["stage"],
            timing.get("left_out") or "",
            f"{timing['seconds']:.1f} s",
            f"{timing['budget_s']:g} s" if timing.get("budget_s") else "–",
        )
        for timing in timings
    ]
    yield page.table(("stage", "left out", "took", "budget"), rows, numbers=2)


def _data(composed: Facts, driven: Facts) -> Iterator[str]:
    facts = {name.replace("_", " "): value for name, value in composed.get("data", {}).items()}
    facts |= {name: composed[name] for name in ("version", "members") if name in composed}
    if not facts:
        yield page.missing("The run stopped before its data was split.")
        return
    yield page.facts((name, _plain(value)) for name, value in facts.items())
    if traffic := driven.get("traffic"):
        yield f"<h2>Traffic</h2>{page.facts((name, _plain(value)) for name, value in traffic.items())}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """Four significant digits at least, thousands apart."""
    return f"{value:,.1f}" if abs(value) < 1_000 else f"{value:,.0f}"


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "−") + _number(abs(value))


def _with_interval(value: float, interval: list[float | None], signed: bool = False) -> str:
    say = _signed if signed else _number
    low, high = interval
    return say(value) if low is None or high is None else f"{say(value)}  [{say(low)}, {say(high)}]"


if __name__ == "__main__":
    main()
