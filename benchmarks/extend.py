"""Extending a 2 GB checkpoint on disk: `paper-digest babel extend` beside mergekit's passthrough and beside `cp`.

    python benchmarks/extend.py                  build 2 GB, all three, figures and ratios
    python benchmarks/extend.py --no-peer        without mergekit (which is installed into an environment of its own)
    python benchmarks/extend.py --gb 0.2         a smaller checkpoint

The checkpoint is a Qwen2 layout of 28 layers in bf16 with random weights, in shards, built in a temporary folder (--work
names another disk). All three make 34 layers of it by the plan of Babel-9B, or, for `cp`, copy those 34 layers. mergekit
stacks and copies and has no noise, so `--init copy` is its like; the paper's noise, which draws random numbers for every
new weight, is timed as well. Every program is started by a shell's means, warm page cache, best of some rounds that take
turns; peak memory is the kernel's ru_maxrss of the process, which for a program that maps files counts mapped pages too.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = "mergekit==0.1.5"
GOALS = {"cp": 1.3, "peer_time": 2.0, "peer_memory": 4.0, "memory": 300}
POSITIONS = (14, 16, 18, 20, 22, 24)  # Table 3, Babel-9B


def build(folder, gb, shards=6):
    "A sharded bf16 checkpoint of about `gb` GB with random weights."
    import torch
    from safetensors.torch import save_file

    from paper_digest.babel.shape import layer_shapes, parameters
    config = dict(model_type="qwen2", architectures=["Qwen2ForCausalLM"], hidden_size=1280, intermediate_size=6912, num_attention_heads=20,
                  num_key_value_heads=4, num_hidden_layers=28, vocab_size=59392, tie_word_embeddings=False, torch_dtype="bfloat16",
                  max_position_embeddings=4096, rms_norm_eps=1e-6, rope_theta=1e6, hidden_act="silu", max_window_layers=28,
                  bos_token_id=0, eos_token_id=1)
    if gb < 1:
        config |= dict(hidden_size=384, intermediate_size=2304, num_attention_heads=6, num_key_value_heads=2, vocab_size=32000)
    names = {f"model.layers.{i}.{n}": s for i in range(28) for n, s in layer_shapes(config).items()}
    h, v = config["hidden_size"], config["vocab_size"]
    names = {"model.embed_tokens.weight": (v, h), **names, "model.norm.weight": (h,), "lm_head.weight": (v, h)}
    folder.mkdir()
    torch.manual_seed(0)
    noise = torch.randn(v * h).mul_(.02).to(torch.bfloat16)
    total, parts, room = 2 * parameters(config), [{}], 0
    for name, shape in names.items():
        n = torch.Size(shape).numel()
        if room > total / shards:
            parts, room = [*parts, {}], 0
        parts[-1][name] = noise[:n].roll(len(name)).reshape(shape)
        room += 2 * n
    where = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        where |= {n: file for n in part}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}))


def run(command):
    "Seconds and peak MB of a command; its output where it fails."
    with tempfile.TemporaryFile() as log:
        begun = time.time()
        child = subprocess.Popen([str(c) for c in command], stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)  # it is collected here
        seconds = time.time() - begun
        log.seek(0)
        text = log.read().decode(errors="replace").strip()
    return seconds, usage.ru_maxrss / 1024, child.returncode, text


def peer_program():
    "mergekit-yaml of the peer's environment, made at the first run; exits with one line when it cannot be installed."
    from paper_digest.data import cache_dir
    home = cache_dir() / "peers" / PEER.replace("==", "-")
    if not (home / "ready").exists():
        print(f"installing {PEER} into its own environment under the cache folder", flush=True)
        home.mkdir(parents=True, exist_ok=True)
        pip = [str(home / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", PEER]
        for command in ([sys.executable, "-m", "venv", str(home)], pip):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
                sys.exit(f"extend: {PEER} cannot be installed ({reason[0]}); --no-peer gives our figures alone")
        (home / "ready").touch()
    return home / "bin/mergekit-yaml"


def recipe(src, file):
    "The same plan as mergekit's slices: each ends with the layer to repeat, the next begins with it."
    borders = [0, *POSITIONS, 28]
    slices = [{"sources": [{"model": str(src), "layer_range": [a, b + 1 if b < 28 else 28]}]} for a, b in zip(borders, borders[1:], strict=False)]
    file.write_text(json.dumps({"slices": slices, "merge_method": "passthrough", "dtype": "bfloat16"}))  # JSON is YAML
    return file


def fastest(rounds, programs, target):
    "Best seconds and highest peak of every program, which take turns; what the last round wrote stays for the checks."
    found = {}
    for _ in range(rounds):
        for name, command in programs.items():
            shutil.rmtree(target, ignore_errors=True)
            os.sync()
            seconds, peak, code, text = run(command)
            best = found.get(name, {"seconds": float("inf"), "peak": 0})
            last = text.splitlines()[-1] if text else ""
            found[name] = {"seconds": min(best["seconds"], seconds), "peak": max(best["peak"], peak), "code": code, "last": last}
            if code and name != PEER:
                sys.exit(f"extend: {name} failed: {last}")
    return found


def report(found, size, largest):
    "Print times, memory and ratios."
    cp = found["cp -r of the grown checkpoint"]["seconds"]
    print(f"{size / 1e9:.2f} GB to write, largest tensor {largest / 1e6:.0f} MB")
    for name, r in found.items():
        end = f"   ends with status {r['code']}: {r['last'][:100]}" if r["code"] else ""
        print(f"  {name:34} {r['seconds']:7.2f} s  {r['seconds'] / cp:5.2f} x cp  peak {r['peak']:7,.0f} MB{end}")
    ours, noise = found["ours, --init copy"], found["ours, the paper's noise"]
    print(f"time to cp: copy {ours['seconds'] / cp:.2f}, noise {noise['seconds'] / cp:.2f} (goal {GOALS['cp']})")
    print(f"peak memory above the largest tensor: {max(ours['peak'], noise['peak']) - largest / 1e6:.0f} MB (goal {GOALS['memory']})")
    if PEER in found:
        peer = found[PEER]
        for name, r in (("copy", ours), ("noise", noise)):
            print(f"{PEER} to ours, {name}: {peer['seconds'] / r['seconds']:.1f} x the time (goal {GOALS['peer_time']}), "
                  f"{peer['peak'] / r['peak']:.1f} x the memory (goal {GOALS['peer_memory']})")


def main():
    "Run the measurements."
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--no-peer", action="store_true", help="do not install or run mergekit")
    arguments.add_argument("--gb", type=float, default=2.0, help="size of the checkpoint: 2, or less than 1 for a quick look")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--work", type=Path, help="folder on the disk to measure")
    arguments.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.build:
        return build(options.build, options.gb)
    program = [sys.executable, "-m", "paper_digest.cli", "babel"]
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        src, grown, out = (Path(folder) / n for n in ("base", "grown", "out"))
        # in a process of its own: a child's peak memory begins at its parent's size, so this one stays small
        built = subprocess.run([sys.executable, __file__, "--build", src, "--gb", str(options.gb)])
        if built.returncode:
            sys.exit("extend: the checkpoint could not be built")
        extend = [*program, "extend", src]
        plan = ["--preset", "babel_9b"]
        first = run([*extend, grown, *plan])
        if first[2]:
            sys.exit(f"extend: {first[3]}")
        programs = {"cp -r of the grown checkpoint": ["cp", "-r", grown, out], "ours, --init copy": [*extend, out, *plan, "--init", "copy"],
                    "ours, the paper's noise": [*extend, out, *plan]}
        if not options.no_peer:
            programs[PEER] = [peer_program(), recipe(src, Path(folder) / "merge.yaml"), out, "--copy-tokenizer", "--low-cpu-memory"]
        found = fastest(options.rounds, programs, out)
        size = sum(f.stat().st_size for f in grown.glob("*.safetensors"))
        report(found, size, 2 * 59392 * 1280 if options.gb >= 1 else 2 * 32000 * 384)
        for name, command in (("verify", [*program, "verify", src, grown, "--bytes-only"]), ("remove", [*program, "remove", grown, Path(folder) / "back"])):
            seconds, peak, code, text = run(command)
            print(f"{name}: status {code} in {seconds:.1f} s, peak {peak:,.0f} MB: {text.splitlines()[-1].replace(folder, '')}")
        same = all((Path(folder) / "back" / f.name).read_bytes() == f.read_bytes() for f in src.iterdir())
        print(f"remove gave back every byte of {len(list(src.iterdir()))} files: {'yes' if same else 'NO'}")


if __name__ == "__main__":
    main()
