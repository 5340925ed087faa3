from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from cluster import config
from cluster.config import Settings
from cluster.config_text import as_values, as_yaml
from cluster.errors import ConfigError


def fields(model: type[BaseModel], at: str = "") -> Iterator[tuple[str, object]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{at}{name}.")
        else:
            yield f"{at}{name}", field


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def test_every_setting_has_a_default_and_a_description() -> None:
    found = dict(fields(Settings))
    assert len(found) > 50
    assert [name for name, field in found.items() if field.is_required()] == []
    assert [name for name, field in found.items() if not field.description] == []


def test_the_printed_settings_read_back_to_the_same(home: Path, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "seed: 7\nrewards: {reward: {high: 5}, 'view: 10 s': {window_s: 3}}\n"
        "bandits: {custom: ['mine:Own']}\ngenerator: {model: '/models/a: b'}\n",
    )
    settings = config.load(path)
    again = tmp_path / "again.yaml"
    again.write_text(as_yaml(settings))
    assert config.load(again) == settings
    again.write_text(yaml.safe_dump(as_values(settings)))
    assert config.load(again) == settings
    assert config.load(again).rewards["view: 10 s"].window_s == 3


def test_the_environment_comes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "home: /from/the/file\nseed: 3\n")
    monkeypatch.delenv("MEDLEY_HOME", raising=False)
    assert config.load(path).home == Path("/from/the/file")
    monkeypatch.setenv("MEDLEY_HOME", "relative")
    assert config.load(path).home == Path.cwd() / "relative"
    assert config.load(path).seed == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede: 1", "sede: unknown setting; did you mean 'seed'"),
        ("law: {partikles: 3}", "law.partikles: unknown setting; did you mean 'particles'"),
        ("xyzzy: 1", "xyzzy: unknown setting; known: "),
        ("seed: many", "seed = 'many': .*integer"),
        ("law: {epsilon: 2}", "law.epsilon = 2"),
        ("law: {epsilon: .nan}", "law.epsilon = nan"),
        ("rewards: {view: {lo: 1}}", "rewards.view.lo: unknown setting; did you mean 'low'"),
        ("rewards: {reward: {low: -.inf}}", "rewards.reward.low = -inf: Input should be a finite number"),
        ("weights: {eta: .inf}", "weights.eta = inf: Input should be a finite number"),
        ("serve: {port: 99999}", "serve.port = 99999"),
        ("serve: {max_replicas: 2}", "need PostgreSQL"),
        ("rewards: {reward: {low: 1, high: 1}}", "low 1.0 must be below high 1.0"),
        ("metric: {weights: {}}", "metric.weights = {}: .*at least 1 item"),
        ("metric: {weights: {clicks: 1}}", "metric.weights.clicks"),
        (
            "metric: {kind: conversion}\nrewards: {reward: {high: 5}}",
            r"gives rewards in \[0, 1\], and rewards.reward, .* is declared \[0, 5\]; declare it \[0, 1\]",
        ),
        ("bandits: {predefined: []}", "bandits.predefined = .*at least 1 item"),
        ("bandits: {predefined: [linear, uniform, linear]}", "two members named 'linear'; list each"),
        ("bandits: {custom: ['mine:Own', 'yours.own:OWN']}", "two members named 'own'"),
        ("bandits: {custom: ['mine:Generated']}", "two members named 'generated'"),
        ("generator: {hidden: 7}", "generator.hidden = 7: .*multiple of 2"),
        ("reward_kind: clicks", "'clicks' is not one of rewards"),
        ("- a\n- b", "expected keys and values, found list"),
        ("a: [", "cannot read the configuration"),
        ("home: \0", "cannot read the configuration"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        config.load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read"):
        config.load(tmp_path / "none.yaml")


def test_settings_change_by_path() -> None:
    base = Settings(seed=3)
    found = config.changed(base, {"law.delta": 0.2, "seed": 4, "rewards.reward.high": 5})
    assert (found.law.delta, found.seed, found.reward.high) == (0.2, 4, 5.0)
    assert (base.law.delta, base.seed) == (0.1, 3)
    assert config.changed(found, {"law.delta": 0.1, "seed": 3, "rewards.reward.high": 1}) == base


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("law.dleta", 0.1, "law.dleta: unknown setting; did you mean 'delta'"),
        ("lwa.delta", 0.1, "lwa: unknown setting; did you mean 'law'"),
        ("law.delta.more", 0.1, "law.delta.more: 'delta' is a value, not a section"),
        ("law.delta", 1.5, "law.delta = 1.5: .*less than or equal to 1"),
    ],
)
def test_a_change_that_cannot_be_is_named(path: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.changed(Settings(), {path: value})
