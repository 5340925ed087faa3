"""Generation on Ray's actors gives what the model gives in process."""

from pathlib import Path

import numpy as np
import pytest

from actors.generator.actor import Pool
from actors.generator.generator import Generator
from actors.generator.train import train
from cluster.config import Settings
from cluster.errors import ClusterError
from tests.generator_worlds import OneHots, halves, planted

SETTINGS = Settings.model_validate(
    {
        "budgets": {"backbone_s": 600, "head_s": 600},
        "generator": {"hidden": 32, "layers": 1, "tokens": 32, "actors": 2, "backbone_steps": 3, "head_steps": 70},
    }
)


@pytest.mark.ray
def test_a_pool_embeds_for_training_and_generates_afterwards(ray_session: object, tmp_path: Path) -> None:
    dataset, _ = planted(users=40, rows=6, seed=0)
    fit, stop = halves(dataset)
    with Pool(tmp_path / "model", SETTINGS.generator) as pool:
        generator = train(dataset, OneHots(), fit, stop, SETTINGS, route=pool.route, progress=False)
        texts = ["colour=red age=20", "colour=blue age=33", "colour=red age=20"]
        np.testing.assert_allclose(pool.embed(texts), generator.backbone.embed(texts), atol=1e-5)
    generator.save(tmp_path / "whole")
    with Pool(tmp_path / "whole", SETTINGS.generator) as pool:
        pool.start()
        pieces = pool.generate(texts)
    here = Generator.load(tmp_path / "whole")
    expected = here.generate(here.text_codes(texts))
    assert [len(p.means_CAD) for p in pieces] == [8, 4]
    np.testing.assert_allclose(np.concatenate([p.means_CAD for p in pieces]), expected.means_CAD, atol=1e-5)


@pytest.mark.ray
def test_more_gpu_than_there_is_is_named(ray_session: object, tmp_path: Path) -> None:
    greedy = SETTINGS.generator.model_copy(update={"gpus": 512.0})
    with pytest.raises(ClusterError, match=r"generator\.gpus = 512"):
        Pool(tmp_path, greedy).start()
