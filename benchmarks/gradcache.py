"""A contrastive batch of 512 in the memory of 64: `paper_digest.abc`'s chunked step beside the plain one in the same run.

    python benchmarks/gradcache.py                         512 pairs in chunks of 64
    python benchmarks/gradcache.py --batch 256 --chunk 32

Three ways over the same weights and pairs, each in a process of its own: the whole batch at once, the whole batch in chunks
(`cached_backward`), and a plain batch of one chunk, whose memory is the goal and whose loss has fewer negatives. Memory is the
peak of the step over what the process held before it (Linux: VmHWM after a reset), so weights and pictures do not count.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def memory(reset=False):
    "Resident megabytes now and at most since the last reset."
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = dict(l.split(":", 1) for l in Path("/proc/self/status").read_text().splitlines() if ":" in l)
    return tuple(int(lines[k].split()[0]) / 1024 for k in ("VmRSS", "VmHWM"))


def step(batch, chunk, file):
    "One step in this process; gradients go to `file`, figures to standard output."
    import warnings
    warnings.filterwarnings("ignore")
    import torch
    from safetensors.torch import save_file
    from paper_digest.abc.inputs import Item, Reader
    from paper_digest.abc.backbone import both_ways
    from paper_digest.abc.model import ABCModel
    from paper_digest.abc.tiny import image_processor, tiny_qwen2_vl, word_tokenizer
    from paper_digest.abc.train import ContrastiveTrainer, Pair, collate_groups, trainer_arguments
    from paper_digest.abc.world import LARGE, alt_text, draw, scenes, vocabulary
    reader = Reader(word_tokenizer(vocabulary()), image_processor())
    drawn = scenes(LARGE, batch, 0)
    groups = [[Pair(Item(p, None), alt_text(s))] for p, s in zip(reader.pixels([draw(s) for s in drawn]), drawn)]
    model = ABCModel(both_ways(tiny_qwen2_vl(len(reader.tokenizer), hidden=192, layers=4, vision_width=128, vision_layers=2).model), reader)
    with tempfile.TemporaryDirectory() as folder:
        trainer = ContrastiveTrainer(model, trainer_arguments(folder, 1, batch, 1e-3, 0), groups, chunk=chunk)
    inputs = collate_groups(reader, groups, chunk)
    small = collate_groups(reader, groups[:8], 0)  # the first call pays for what later ones do not
    trainer.compute_loss(model.train(), small).backward()
    model.zero_grad(set_to_none=False)  # gradients have their place before the measurement
    torch.manual_seed(0)
    before, begin = memory(reset=True)[0], time.perf_counter()
    if chunk:
        loss = trainer.training_step(model, inputs)
    else:
        loss = trainer.compute_loss(model, inputs)
        loss.backward()
    seconds = time.perf_counter() - begin
    print(json.dumps({"mb": memory()[1] - before, "seconds": seconds, "loss": loss.item()}))
    save_file({n: p.grad.contiguous() for n, p in model.named_parameters() if p.grad is not None}, file)


def main():
    "Run the three ways and compare."
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--batch", type=int, default=512, help="pairs (default 512)")
    options.add_argument("--chunk", type=int, default=64, help="pairs through the model at once (default 64)")
    options.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.step:
        return step(int(chosen.step[0]), int(chosen.step[1]), chosen.step[2])
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("gradcache: the peak memory of one step is read from /proc, which only Linux has")
    from safetensors.torch import load_file
    ways, gradients = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, batch, chunk in (("whole", chosen.batch, 0), ("chunks", chosen.batch, chosen.chunk), ("small", chosen.chunk, 0)):
            file = f"{folder}/{name}.safetensors"
            done = subprocess.run([sys.executable, __file__, "--step", str(batch), str(chunk), file], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"gradcache: {done.stderr.strip().splitlines()[-1]}")
            ways[name], gradients[name] = json.loads(done.stdout.splitlines()[-1]), load_file(file)
    for name, words in (("whole", f"plain, batch {chosen.batch}"), ("chunks", f"in chunks of {chosen.chunk}, batch {chosen.batch}"),
                        ("small", f"plain, batch {chosen.chunk}")):
        w = ways[name]
        print(f"  {words:<32}{w['mb']:8.0f} MB{w['seconds']:8.2f} s   loss {w['loss']:.5f}")
    most = max((gradients["whole"][n] - gradients["chunks"][n]).abs().max().item() for n in gradients["whole"])
    size = max(g.abs().max().item() for g in gradients["whole"].values())
    print(f"  gradients of {len(gradients['whole'])} tensors: largest difference {most:.1e} (goal 1e-5; largest entry {size:.2f}); "
          f"memory {ways['chunks']['mb'] / ways['whole']['mb']:.2f} of the whole batch's and {ways['chunks']['mb'] / ways['small']['mb']:.2f} "
          f"of a batch of {chosen.chunk}; time ratio {ways['chunks']['seconds'] / ways['whole']['seconds']:.2f}")


if __name__ == "__main__":
    main()
