"""Workers of one process group: shares of unequal size, one of them out of memory, the same weights in the end."""

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from cluster.clock import Clock
from tests.test_generator_pretrain import small, trained, weights

WORKER = """
import sys
import torch
from safetensors.torch import save_file
from actors.generator.backbone import Backbone
from actors.generator.gang import Gang
from tests.test_generator_pretrain import Clock, Narrow, small, trained, weights

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=2)
gang, plain = Gang(torch.device("cpu")), small(batch=7)
# An update has seven rows, or one: worker 1 reads three of them, or none. Worker 0 has memory for one at a time.
backbone = Backbone(Narrow(plain.model, most=1), plain.tokenizer, 24, batch=7) if rank == 0 else plain
training = trained(backbone, Clock(600, steps=20), workers=gang)
assert backbone.batch == (1 if rank == 0 else 7), backbone.batch
assert (gang.first(rank == 0), gang.first(rank == 1)) == (True, False)
save_file(weights(plain) | {"loss": torch.tensor(training.best_loss)}, f"{folder}/{rank}")
"""


def test_shares_add_up_to_the_update_of_one_worker(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen([*words, str(rank)]) for rank in range(2)]
    try:
        assert [worker.wait(timeout=180) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    alone = small(batch=7)
    loss = trained(alone, Clock(600, steps=20)).best_loss
    one, two = load_file(tmp_path / "0"), load_file(tmp_path / "1")
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    for name, value in (weights(alone) | {"loss": torch.tensor(loss)}).items():
        torch.testing.assert_close(one[name], value, atol=2e-3, rtol=0, msg=name)
