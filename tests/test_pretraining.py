"""Two workers of Ray Train read the updates of one: the training is the same but for rounding."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.generator.checkpoint import Checkpoint
from actors.generator.train import read, train_backbone
from cluster.config import Settings
from cluster.errors import JobError
from tests.generator_worlds import OneHots, halves, planted

SETTINGS = Settings.model_validate(
    {
        "budgets": {"backbone_s": 600},
        "generator": {"hidden": 32, "layers": 1, "tokens": 32, "batch": 8, "workers": 2, "backbone_steps": 60},
    }
)


@pytest.mark.slow
@pytest.mark.ray
def test_two_workers_train_what_one_trains(ray_session: object, tmp_path: Path) -> None:
    from tune.pretraining import train_together

    dataset, _ = planted(users=60, rows=8, seed=0)
    reading = read(dataset, OneHots(), *halves(dataset), SETTINGS)
    one, alone = train_backbone(reading, SETTINGS, progress=False)
    checkpoint = Checkpoint(tmp_path / "training" / "language_model")
    two, together = train_together(reading, SETTINGS, tmp_path, checkpoint, progress=False)
    assert alone is not None
    assert together is not None
    assert (together.steps, together.tokens, together.ended_by) == (60, alone.tokens, "steps")
    assert together.start_loss == pytest.approx(alone.start_loss, rel=1e-5)
    assert together.best_loss == pytest.approx(alone.best_loss, rel=0.01)
    assert together.best_loss < 0.8 * together.start_loss
    texts = list(reading.stop.texts)
    correlation = np.corrcoef(one.embed(texts).ravel(), two.embed(texts).ravel())[0, 1]
    assert correlation > 0.99
    assert checkpoint.path.exists()
    nothing = replace(reading, fit=reading.fit.take(np.zeros(0, np.int64)))
    with pytest.raises(JobError, match=r"2 workers failed: \S*ModelError: 0 histories to train"):
        train_together(nothing, SETTINGS, tmp_path / "nothing", None, progress=False, failures=0)
