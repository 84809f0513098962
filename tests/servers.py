"Local servers for tests: a checkpoint that has learnt a few highlighted answers, served for real, and a server full of faults."
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

QUESTIONS = {
    "A bus has 12 seats. There are 3 buses. How many seats are there?":
        "Reformatted Question: A bus has <fact1>12 seats</fact1>. There are <fact2>3 buses</fact2>. How many seats are there?\n"
        "Answer: <fact2>3 buses</fact2> with <fact1>12 seats</fact1> have 3 * 12 = 36 seats. The answer is {36}.",
    "Eve had 9 pens and lost 4. How many are left?":
        "Reformatted Question: Eve had <fact1>9 pens</fact1> and <fact2>lost 4</fact2>. How many are left?\n"
        "Answer: Of <fact1>9 pens</fact1> she <fact2>lost 4</fact2>, so 9 - 4 = 5 are left. The answer is {5}.",
}
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
            "{{ m['content'] if m['content'] is string else m['content'][0]['text'] }}<|im_end|>\n{% endfor %}"
            "{{ '<|im_start|>assistant\n' }}")  # the markers of Qwen, which `transformers serve` looks for in its answers


def learn_answers(folder, steps=300):
    "A small Qwen2 checkpoint that answers QUESTIONS, asked in mode zero_shot, by heart."
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from paper_digest.hot import build_prompt
    pairs = [(build_prompt("arithmetic", q, "zero_shot"), a) for q, a in QUESTIONS.items()]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.train_from_iterator([t for pair in pairs for t in pair], trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|pad|>", "<|im_end|>", "<|im_start|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|im_end|>", chat_template=TEMPLATE)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        tie_word_embeddings=True))
    rows = []
    for prompt, answer in pairs:
        head = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(head, add_special_tokens=False)["input_ids"]
        rows.append((torch.tensor([ids + tokenizer(answer + "<|im_end|>", add_special_tokens=False)["input_ids"]]), len(ids)))
    optimizer, lately = torch.optim.AdamW(model.parameters(), lr=4e-3), [1.0, 1.0]
    for step in range(steps):
        if max(lately[-2:]) < 0.02:
            break
        ids, start = rows[step % len(rows)]
        loss = model(input_ids=ids, labels=ids.masked_fill(torch.arange(ids.shape[1]) < start, -100)).loss
        loss.backward()
        lately.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@contextmanager
def serving(handler, **state):
    "An HTTP server of this process; yields its address and the state its handlers share."
    class Own(handler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

    for name, value in state.items():
        setattr(Own, name, value)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", Own
    finally:
        server.shutdown()
        server.server_close()


class Protocol(BaseHTTPRequestHandler):
    "The two endpoints of the protocol, with and without streaming, around `reply(body, text) -> (text, finish, tokens)`."

    def do_POST(self):
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer()

    def answer(self):
        chat = self.path.endswith("/chat/completions")
        text, finish, tokens = self.reply(self.body, self.body["messages"][-1]["content"] if chat else self.body["prompt"])
        usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
        if self.body.get("stream"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for i in range(0, len(text), 5):
                piece = {"delta": {"content": text[i:i + 5]}} if chat else {"text": text[i:i + 5]}
                self.event({"choices": [{"index": 0, **piece, "finish_reason": None}]})
            self.event({"choices": [{"index": 0, **({"delta": {}} if chat else {"text": ""}), "finish_reason": finish}]})
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True
        else:
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            self.send(200, json.dumps({"choices": [{"index": 0, **said, "finish_reason": finish}], "usage": usage}).encode())

    def event(self, value):
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())

    def send(self, status, content, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)


class Local(Protocol):
    "A TransformersBackend behind the protocol."
    backend = lock = None

    def reply(self, body, text):
        from paper_digest.generate import Prompt, Sampling
        how = Sampling(temperature=body.get("temperature", 0), max_tokens=body["max_tokens"], stop=tuple(body.get("stop", ())))
        with self.lock:
            c = self.backend.generate([Prompt("q", text)], how)[0]
        return c.text, c.finish, c.tokens


class Counting(Protocol):
    "Answers every question with a small sum, slowly, and writes down what it was asked."
    log, seconds = None, 0.02

    def reply(self, body, text):
        question = text.rsplit("\n\n", 1)[-1].split("\n")[0]
        with open(self.log, "a") as f:
            f.write(json.dumps(question) + "\n")
        time.sleep(self.seconds)
        return f"Reformatted Question: {question}\nAnswer: {question[:9]} gives {{{len(question)}}}.", "stop", 9


@contextmanager
def transformers_serve(checkpoint):
    "`transformers serve` on a checkpoint; yields its address."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    server = subprocess.Popen(
        [sys.executable, "-m", "transformers.cli.transformers", "serve", checkpoint, "--host", "127.0.0.1", "--port", str(port),
         "--device", "cpu"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    said = []
    threading.Thread(target=lambda: said.extend(server.stdout), daemon=True).start()
    try:
        until = time.time() + 90
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert server.poll() is None and time.time() < until, "".join(said)[-2000:]
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()
