"""The language model trained by several workers of Ray Train, where `generator.workers` says so.

Every worker has the whole model and reads its share of each update (`actors.generator.gang`): the update, and so the
training, is that of a single worker but for rounding. gloo adds up on CPUs, nccl on GPUs, of which a worker has one.
A worker that is lost is started again with the others, and all go on from the last checkpoint.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from actors.generator.backbone import Backbone
from actors.generator.checkpoint import Checkpoint
from actors.generator.gang import Gang
from actors.generator.pretrain import Training
from actors.generator.train import Reading, tuned
from cluster.config import Settings
from cluster.errors import JobError

CPUS = 0.5
"""Reserved per worker: on two cores Serve and the job must find room beside them."""
FAILURES = 3


def train_together(
    reading: Reading,
    settings: Settings,
    folder: Path,
    checkpoint: Checkpoint | None,
    progress: bool,
    failures: int = FAILURES,
) -> tuple[Backbone, Training | None]:
    """A language model trained on the running Ray.

    Args:
        folder: absolute, and like the checkpoint's readable by every node; the workers leave the model there.
        failures: times that all are started again after one failed or was lost.

    Raises:
        JobError: a worker failed; the message is its error.
    """
    own, trained = settings.generator, folder / "trained"
    gpu = own.gpus > 0
    config = {
        "histories": reading.fit.histories,
        "held_out": reading.stop.histories,
        "settings": settings.model_dump_json(),
        "folder": str(trained),
        "checkpoint": checkpoint and str(checkpoint.path),
        "progress": progress,
    }
    trainer = TorchTrainer(
        work,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=own.workers, use_gpu=gpu, resources_per_worker={"CPU": CPUS} | ({"GPU": 1} if gpu else {})
        ),
        run_config=RunConfig(
            name="language_model", storage_path=str(folder), failure_config=FailureConfig(max_failures=failures)
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        said = str(error).strip().splitlines()[-1]
        raise JobError(f"the language model's {own.workers} workers failed: {said}") from error
    facts = json.loads((trained / "training.json").read_text())
    return Backbone.load(str(trained), own.tokens, own.batch), facts and Training(**facts)


def work(config: dict[str, Any]) -> None:
    """One worker's part; worker 0 writes what came of it."""
    settings = Settings.model_validate_json(config["settings"])
    torch.set_num_threads(settings.generator.threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(get_device())
    gang = Gang(get_device())
    checkpoint = Checkpoint(Path(config["checkpoint"])) if config["checkpoint"] else None
    shown = config["progress"] and gang.rank == 0
    backbone, training = tuned(config["histories"], config["held_out"], settings, shown, checkpoint, gang)
    if gang.rank == 0:
        folder = Path(config["folder"])
        backbone.save(folder)
        (folder / "training.json").write_text(json.dumps(training and asdict(training)))
