"""Speed of the batched step search, beside the same search one prompt at a time, in the same run.

    python benchmarks/search.py                1,000 problems batched, 24 of them one prompt at a time
    python benchmarks/search.py --problems 4000 --peer 60
    python benchmarks/search.py --hidden 128   a larger model

Both sides are the same `StepSearch` with the same Qwen2 (single precision, one thread), problems, seed and judge; they
differ in what stands behind the protocol. The peer calls `model.generate` of transformers for one prompt at a time, all
candidates of that prompt together, and one forward pass for each question to the judge, which is how such a loop is
usually written. Ours batches over prompts, reads each prompt once for all its candidates, and batches the judge. A
second peer samples one candidate at a time. The weights are random, since speed does not depend on what is written. The
pairs of all sides must be equal, row by row, else the run fails. Times are processor seconds of one core; each side runs
`--repeats` times and counts with its fastest pass.
"""
import argparse
import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
GOAL = 10


class OneAtATime:
    "The protocol over plain `model.generate`, one prompt a call."

    def __init__(self, model, tokenizer, rows):
        self.model, self.tokenizer, self.rows, self.name = model, tokenizer, rows, "one at a time"

    def _sample(self, prompt, sampling, indices):
        "Completions of one prompt, in one call."
        import torch
        from transformers import LogitsProcessorList
        from paper_digest.decode import draw, row_keys, uniforms
        from paper_digest.generate import Completion
        ids = self.tokenizer(prompt.text + prompt.prefill, return_tensors="pt")["input_ids"].repeat(len(indices), 1)
        keys, width = row_keys(sampling.seed, [(prompt.id, k) for k in indices]), ids.shape[1]

        def noise(input_ids, scores):
            token = draw(scores, uniforms(keys, input_ids.shape[1] - width), sampling.temperature, sampling.top_p)
            return torch.full_like(scores, float("-inf")).scatter(-1, token[:, None], 0.0)

        ends = [self.tokenizer.eos_token_id, *self.tokenizer.convert_tokens_to_ids(list(sampling.stop))]
        with torch.inference_mode():
            out = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=sampling.max_tokens, do_sample=False,
                                      eos_token_id=ends, pad_token_id=self.tokenizer.pad_token_id,
                                      logits_processor=LogitsProcessorList([noise]))
        for k, row in zip(indices, out[:, width:].tolist()):
            n = next((i for i, t in enumerate(row) if t in ends), None)
            stop = self.tokenizer.decode([row[n]]) if n is not None and row[n] != ends[0] else ""
            yield Completion(prompt.id, self.tokenizer.decode(row[:n]), self.name, "length" if n is None else "stop", k,
                             len(row) if n is None else n + 1, stop)

    def generate(self, prompts, sampling):
        "Prompt after prompt."
        return [c for p in prompts for i in range(0, sampling.n, self.rows)
                for c in self._sample(p, sampling, range(i, min(i + self.rows, sampling.n)))]

    def choice_logprobs(self, prompts, choices):
        "Question after question."
        import torch
        columns = self.tokenizer.convert_tokens_to_ids(list(choices))
        with torch.inference_mode():
            rows = [self.model(**self.tokenizer(p.text + p.prefill, return_tensors="pt")).logits[0, -1].log_softmax(-1)[columns]
                    for p in prompts]
        return torch.stack(rows).numpy()


def search(backend, options):
    "The search both sides run."
    from paper_digest.self_rewarding.judge import PointwiseJudge
    from paper_digest.self_rewarding.search import StepSearch
    from paper_digest.self_rewarding.world_text import TinyFormat, judge_prompt
    judge = PointwiseJudge(backend, template=judge_prompt, min_mass=0)
    return StepSearch(backend, judge, TinyFormat(), w=options.width, temperature=1.0, top_p=0.95, max_iter=options.turns,
                      rollback=False, seed=options.seed, at_once=10**6)


def timed(backend, problems, options):
    "Fastest processor seconds of some passes, and the trees."
    best = float("inf")
    for _ in range(options.repeats):
        begin = time.process_time()
        trees = search(backend, options).run(problems)
        best = min(best, time.process_time() - begin)
    return best, trees


def report(name, seconds, trees, base=None):
    "One line; returns samples a second."
    from paper_digest.self_rewarding.trees import summarize
    samples = sum(c.count for t in trees for n in t.nodes for c in n.candidates)
    pairs = summarize(trees).pairs
    ratio = "" if base is None else f"   batched is {base / (samples / seconds):.1f} times as fast (goal {GOAL})"
    print(f"{name:<52} {samples / seconds:9,.0f} samples/s {pairs / seconds:8,.1f} pairs/s{ratio}", flush=True)
    return samples / seconds


def main():
    "Run the measurements."
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--problems", type=int, default=1000, help="problems of the batched search")
    arguments.add_argument("--peer", type=int, default=24, help="problems of the peers, the first of these")
    arguments.add_argument("--hidden", type=int, default=64, help="width of the model")
    arguments.add_argument("--width", type=int, default=6, help="candidates a step")
    arguments.add_argument("--turns", type=int, default=4, help="turns a problem")
    arguments.add_argument("--batch-size", type=int, default=1536, help="rows of a batch")
    arguments.add_argument("--repeats", type=int, default=2, help="passes of each side")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    import torch
    from paper_digest.generate import TransformersBackend
    from paper_digest.models import count_parameters, tiny_qwen2
    from paper_digest.self_rewarding.trees import step_pairs
    from paper_digest.self_rewarding.world import World, draw_problems
    from paper_digest.self_rewarding.world_text import world_tokenizer
    torch.set_num_threads(1)
    world = World(k=4)
    tokenizer = world_tokenizer(world)
    model = tiny_qwen2(len(tokenizer), hidden=options.hidden, seed=options.seed)
    model.lm_head.weight.data *= 0.25  # random weights, but not so sure of themselves that all candidates are alike
    problems = draw_problems(world, "train", options.problems, options.seed)
    print(f"Qwen2 of {count_parameters(model):,} parameters, {options.width} candidates, {options.turns} turns, pointwise judge")
    seconds, trees = timed(TransformersBackend(model, tokenizer, "batched", options.batch_size), problems, options)
    rate = report(f"batched, {len(problems)} problems together", seconds, trees)
    ours, few = step_pairs(trees), {p.id for p in problems[:options.peer]}
    ours = [r for r in ours if r["id"] in few]
    for rows, name in ((options.width, "one prompt at a time, its candidates together"), (1, "one candidate at a time")):
        seconds, found = timed(OneAtATime(model, tokenizer, rows), problems[:options.peer], options)
        report(f"{name}, {options.peer} problems", seconds, found, rate)
        if step_pairs(found) != ours:
            sys.exit("search: the pairs differ; the same seed must give the same pairs")
    print(f"the {len(ours)} pairs of these {options.peer} problems are equal on all sides")


if __name__ == "__main__":
    main()
