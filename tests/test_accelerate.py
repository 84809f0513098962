"Training by two processes over gloo: the launch files the recipes ship, and the same result as one process has."
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from paper_digest.core import UserError  # noqa: E402
from paper_digest.models import load_causal_lm, save_causal_lm, tiny_qwen2, word_tokenizer  # noqa: E402
from paper_digest.train import TrainSettings, dpo_row, launch_job, sft_row, write_job  # noqa: E402

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "nbs/recipes/self_rewarding/accelerate"


def launch_file(folder, name):
    "A shipped launch file for two processes on a CPU, nothing else in it changed; or plain data parallel, every process whole."
    import yaml
    spec = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text()) if name != "ddp" else {
        **yaml.safe_load((SHIPPED / "fsdp.yaml").read_text()), "distributed_type": "MULTI_GPU", "fsdp_config": {}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**spec, "num_processes": 2, "use_cpu": True, "mixed_precision": "no"}))
    return str(path)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A checkpoint, rows for each method, and what one process makes of them with the whole batch."
    folder = tmp_path_factory.mktemp("accelerate")
    tok = word_tokenizer(["Problem: ", "Step 1: ", "\n", " + ", " = ", *map(str, range(10))])
    sums = [(a, b) for a in range(8) for b in range(8)]

    def step(a, b, off=0):
        return f"Step 1: {a} + {b} = {(a + b + off) % 10}"
    rows = {"sft": [sft_row(tok, f"Problem: {a} + {b}\n", step(a, b)) for a, b in sums],
            "dpo": [dpo_row(tok, f"Problem: {a} + {b}\n", step(a, b), step(a, b, 1)) for a, b in sums]}
    m0 = save_causal_lm(tiny_qwen2(len(tok), hidden=32, layers=2), tok, folder / "M0")

    def job(method, name, batch, **more):
        how = TrainSettings(learning_rate=1e-2, batch_size=batch, max_steps=4, beta=0.5, **more)
        return write_job(folder / f"{method}-{name}", method, m0, rows[method], how, folder / f"{method}-{name}-out")
    return folder, job


def weights(job):
    return list(load_causal_lm(json.loads(job.read_text())["out"])[0].parameters())


@pytest.mark.parametrize("method, name", [("sft", "ddp"), ("sft", "fsdp"), ("dpo", "fsdp"), ("sft", "zero3"), ("dpo", "zero3")])
def test_two_processes_train_what_one_does(work, method, name):
    if name == "zero3":
        pytest.importorskip("deepspeed", reason="needs DeepSpeed: DS_BUILD_OPS=0 pip install deepspeed")
    folder, job = work
    one, two = job(method, "one", 16), job(method, name, 8)
    alone, shared = launch_job(one), launch_job(two, launch_file(folder, name))
    assert shared["steps"] == alone["steps"] == 4
    assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-4)
    if method == "dpo":  # what both answers share has no gradient but rounding, which Adam makes as large as any other
        assert shared["rewards/margins"] == pytest.approx(alone["rewards/margins"], abs=1e-4)
    else:
        apart = max((p - q).abs().max().item() for p, q in zip(weights(one), weights(two)))
        assert apart < 1e-4, f"weights differ by {apart}"


def test_a_launch_that_fails_names_its_first_error(tmp_path):
    with pytest.raises(UserError, match="ended with status 1: .*FileNotFoundError"):
        launch_job(tmp_path / "job.json", launch_file(tmp_path, "ddp"))


def meet(rank, folder):
    "One of two processes: its half of the queries against the candidates of both."
    import torch.distributed as dist

    from paper_digest.abc.loss import gather_candidates, info_nce
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    queries, candidates, texts = (t[4 * rank:4 * rank + 4] for t in torch.load(f"{folder}/all.pt"))
    queries.requires_grad_()
    everything, labels, first = gather_candidates(candidates, texts)
    loss = info_nce(queries, everything, torch.tensor(0.1), labels, first=first)
    loss.backward()
    torch.save((loss.detach(), queries.grad / 2), f"{folder}/{rank}.pt")  # / 2: data parallel takes the mean of the processes
    dist.destroy_process_group()


def test_contrastive_queries_meet_the_candidates_of_both_processes(tmp_path):
    from paper_digest.abc.loss import info_nce
    torch.manual_seed(0)
    queries, candidates = (torch.nn.functional.normalize(torch.randn(8, 16), dim=-1) for _ in range(2))
    texts = torch.tensor([1, 2, 3, 4, 5, 6, 2, 8])     # one text stands in both halves
    torch.save((queries, candidates, texts), tmp_path / "all.pt")
    torch.multiprocessing.spawn(meet, (str(tmp_path),), nprocs=2)
    losses, gradients = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)))
    queries.requires_grad_()
    alone = info_nce(queries, candidates, torch.tensor(0.1), texts)
    alone.backward()
    assert torch.stack(losses).mean().item() == pytest.approx(alone.item(), abs=1e-6)
    assert torch.allclose(torch.cat(gradients), queries.grad, atol=1e-6)
