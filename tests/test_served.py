"The OpenAI-compatible backend against real local servers, and against one that does everything wrong."
import json
import re
import socket
import threading
import time

import pytest
import servers

from paper_digest.core import UserError
from paper_digest.generate import Prompt, Sampling
from paper_digest.live import stream
from paper_digest.served import Endpoint, ServedBackend

KEY = "sk-test-0123456789-abcdef"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return servers.learn_answers(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def local(checkpoint):
    "The checkpoint loaded in this process, asked as a user's message and as bare text."
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from paper_digest.generate import TransformersBackend
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    return [TransformersBackend(model, tokenizer, "tiny", 8, chat=chat) for chat in (True, False)]


@pytest.fixture(scope="module", params=["transformers serve", "own server"])
def served(request, checkpoint, local):
    "Address of the checkpoint behind each server, and the model's name there."
    if request.param == "own server":
        with servers.serving(servers.Local, backend=local[0], lock=threading.Lock()) as (url, _):
            yield url, "tiny", (True,)
        return
    from transformers.utils.import_utils import is_serve_available
    if not is_serve_available():
        pytest.skip("`transformers serve` lacks its packages; pip install fastapi uvicorn openai")
    with servers.transformers_serve(checkpoint) as url:
        yield url, checkpoint, (True, False)


def prompts():
    from paper_digest.hot import build_prompt
    return [Prompt(str(i), build_prompt("arithmetic", q, "zero_shot")) for i, q in enumerate(servers.QUESTIONS)]


def test_a_real_server_gives_what_the_model_gives_here(served, local, tmp_path):
    url, name, chats = served
    for chat in chats:
        here = local[0 if chat else 1].generate(prompts(), Sampling(max_tokens=90))
        there = ServedBackend(Endpoint(url, name, chat), tmp_path / f"{chat}.jsonl", concurrency=2)
        found = there.generate(prompts(), Sampling(max_tokens=90))
        assert [(c.id, c.text, c.finish) for c in found] == [(c.id, c.text, c.finish) for c in here]
        if chat:
            assert [c.text for c in found] == list(servers.QUESTIONS.values())
            assert there.usage.completion_tokens == sum(c.tokens for c in here)
        assert there.generate(prompts(), Sampling(max_tokens=90)) == found and there.usage.requests == 2


def test_limits_and_stop_texts(served, local):
    url, name, _ = served
    backend = ServedBackend(Endpoint(url, name))
    short = backend.generate(prompts()[:1], Sampling(max_tokens=5))[0]
    assert (short.finish, short.tokens) == ("length", 5)
    ended = backend.generate(prompts()[:1], Sampling(max_tokens=90, stop=("\nAnswer:",)))[0]
    assert ended.text == list(servers.QUESTIONS.values())[0].split("\nAnswer:")[0]
    assert ended.finish == "stop" and ended.stop in ("\nAnswer:", "")  # most servers cut it off without a word


def test_a_real_stream_is_the_answer(served):
    url, name, _ = served
    for prompt, answer in zip(prompts(), servers.QUESTIONS.values()):
        pieces = list(stream(Endpoint(url, name), prompt, Sampling(max_tokens=90)))
        assert "".join(pieces) == answer and len(pieces) > 5
    cut = stream(Endpoint(url, name), prompts()[0], Sampling(max_tokens=90, stop=("seats</fact1>.",)))
    assert "".join(cut) == servers.QUESTIONS[list(servers.QUESTIONS)[0]].split("seats</fact1>.")[0]


class Faulty(servers.Protocol):
    "Fails in the next way on the list, then answers."
    faults, log = (), ()

    def reply(self, body, text):
        return f"heard {text}", "stop", 3

    def answer(self):
        self.log.append((self.path, self.headers.get("Authorization"), self.headers.get("Idempotency-Key")))
        fault = self.faults.pop(0) if self.faults else None
        if fault is None:
            return super().answer()
        if isinstance(fault, tuple):
            status, content, *headers = fault
            return self.send(status, content, **(headers[0] if headers else {}))
        getattr(self, fault)()

    def good(self):
        reply = {"choices": [{"message": {"content": "x" * 5000}, "finish_reason": "stop"}]}
        return json.dumps(reply).encode()

    def stall(self):
        time.sleep(1.5)

    def stall_in_body(self):
        self.head(len(self.good()))
        self.wfile.write(self.good()[:2000])
        self.wfile.flush()
        time.sleep(1.5)

    def trickle(self):
        self.head(len(self.good()))
        for i in range(20):  # never silent for long, and never done
            self.wfile.write(self.good()[i:i + 1])
            self.wfile.flush()
            time.sleep(0.1)

    def cut_body(self):
        self.head(len(self.good()))
        self.wfile.write(self.good()[:2000])
        self.hang_up()

    def hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def not_http(self):
        self.wfile.write(b"\x00\x01 what?\r\n\r\n")
        self.hang_up()

    def bad_gzip(self):
        self.send(200, self.good(), Content_Encoding="gzip")

    def cut_stream(self):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.event({"choices": [{"delta": {"content": "half an"}, "finish_reason": None}]})
        self.hang_up()

    def stall_stream(self):
        self.send_response(200)
        self.end_headers()
        self.event({"choices": [{"delta": {"content": "half an"}, "finish_reason": None}]})
        self.wfile.flush()
        time.sleep(1.5)

    def head(self, length):
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()


PASSING = {  # faults that pass
    "429 with a wait": (429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.05"}),
    "429 with a date": (429, b"", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), "500": (500, b"oops"), "503": (503, b"<html>"),
    "529": (529, b'{"type": "error"}'), "malformed JSON": (200, b'{"choices": [{"message": {"content": "a'),
    "no JSON": (200, b"<html>ok</html>"), "empty": (200, b""), "error in a success": (200, b'{"error": {"message": "overloaded"}}'),
    "no choices": (200, b'{"choices": []}'), "not UTF-8": (200, b'{"choices": "\xff\xfe"}'), "stall": "stall",
    "stall in the body": "stall_in_body", "trickle": "trickle", "cut body": "cut_body", "hang up": "hang_up", "not HTTP": "not_http",
    "bad gzip": "bad_gzip",
}


@pytest.fixture
def faulty(monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_API_KEY", KEY)
    with servers.serving(Faulty, faults=[], log=[]) as (url, state):
        yield url, state


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_tried_again(faulty, fault):
    url, state = faulty
    state.faults[:] = [PASSING[fault]] * 2
    backend = ServedBackend(Endpoint(url, "m", timeout=0.5), cap=0.05, concurrency=1)
    assert backend.generate([Prompt("a", "hello")])[0].text == "heard hello"
    assert backend.usage.requests == 3 and backend.usage.answers == 1
    assert len({key for _, _, key in state.log}) == 1  # a server that knows such keys does the work once


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_stays_ends_with_one_line(faulty, fault, tmp_path):
    url, state = faulty
    state.faults[:] = [PASSING[fault]] * 2
    backend = ServedBackend(Endpoint(url, "m", timeout=0.5), tmp_path / "kept.jsonl", cap=0.05, concurrency=1, tries=2)
    with pytest.raises(UserError) as err:
        backend.generate([Prompt("a", "first"), Prompt("b", "second")])
    message = str(err.value)
    assert "1 of 2 requests got no answer, first prompt 'a'" in message and "goes on from there" in message and "\n" not in message
    asked = len(state.log)
    assert [c.text for c in backend.generate([Prompt("a", "first"), Prompt("b", "second")])] == ["heard first", "heard second"]
    assert len(state.log) == asked + 1  # the second was kept


def test_a_server_that_is_gone_is_not_asked_for_everything():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    backend = ServedBackend(Endpoint(f"http://127.0.0.1:{port}/v1", "m"), cap=0.02, concurrency=2, tries=3)
    begun = time.time()
    with pytest.raises(UserError, match="the connection failed .ConnectError."):
        backend.generate([Prompt(str(i), f"q{i}") for i in range(500)])
    assert backend.usage.requests < 40 and time.time() - begun < 60


@pytest.mark.parametrize("status, cure", [(400, "correct the request"), (401, "set the environment variable PAPER_DIGEST_API_KEY"),
                                          (404, "usually ends in /v1"), (302, "the server points elsewhere")])
def test_a_refusal_is_final(faulty, status, cure):
    url, state = faulty
    state.faults[:] = [(status, f'{{"error": {{"message": "no: {KEY}"}}}}'.encode(), {"Location": "http://127.0.0.1:9/"})]
    backend = ServedBackend(Endpoint(url, "m"), concurrency=1)
    with pytest.raises(UserError) as err:
        backend.generate([Prompt(str(i), f"q{i}") for i in range(50)])
    assert cure in str(err.value) and KEY not in str(err.value) and f"HTTP {status}" in str(err.value)
    assert len(state.log) <= 2  # the rest was not sent, nor was the key sent elsewhere


def test_the_wait_a_server_asks_for_is_kept_and_capped(faulty):
    url, state = faulty
    state.faults[:] = [(429, b"", {"Retry-After": "0.4"}), (429, b"", {"Retry-After": "7200"})]
    begun = time.time()
    ServedBackend(Endpoint(url, "m"), cap=0.6).generate([Prompt("a", "hello")])
    assert 1.0 <= time.time() - begun < 5


def test_many_requests_at_once(faulty):
    url, state = faulty
    state.reply = lambda self, body, text: time.sleep(0.1) or (f"heard {text}", "stop", 3)
    begun = time.time()
    found = ServedBackend(Endpoint(url, "m"), concurrency=10).generate([Prompt(str(i), f"q{i}") for i in range(60)])
    assert [c.text for c in found] == [f"heard q{i}" for i in range(60)]
    assert time.time() - begun < 3  # one after the other would take 6 seconds


@pytest.mark.parametrize("fault, said", [("cut_stream", "the connection failed|broke off"), ("stall_stream", "the connection failed")])
def test_a_broken_stream_says_so(faulty, fault, said):
    url, state = faulty
    state.faults[:] = ["hang_up", fault]
    got = []
    with pytest.raises(UserError, match=f"({said}).*after 7 characters"):
        for piece in stream(Endpoint(url, "m", timeout=0.5), Prompt("a", "hello"), cap=0.05):
            got.append(piece)
    assert got == ["half an"]


def test_the_key_stays_in_the_environment(faulty, tmp_path, capfd, caplog, monkeypatch):
    url, state = faulty
    caplog.set_level(0)
    other = KEY[:5] + "*" * 12 + KEY[-4:]
    echoes = [KEY, f"key {KEY}\n in two lines", f"you sent Bearer {KEY} here", other]
    texts = []
    for echo in echoes:
        state.faults[:] = [(500, json.dumps({"error": {"message": echo}}).encode())] * 2 + [(401, echo.encode())]
        backend = ServedBackend(Endpoint(url, "m"), tmp_path / "kept.jsonl", cap=0.02, tries=2)
        for _ in range(2):
            with pytest.raises(UserError) as err:
                backend.generate([Prompt("a", "hello")])
            texts += [str(err.value), repr(err.value)]
        texts += [repr(vars(backend)), repr(vars(backend.endpoint)), str(backend.usage)]
    ServedBackend(Endpoint(url, "m"), tmp_path / "kept.jsonl").generate([Prompt("a", "hello")])
    assert {auth for _, auth, _ in state.log} == {f"Bearer {KEY}"}
    texts += [(tmp_path / "kept.jsonl").read_text(), *capfd.readouterr(), caplog.text]
    assert not [t for t in texts if KEY in t or "0123456789" in t or other in t]
    monkeypatch.delenv("PAPER_DIGEST_API_KEY")
    ServedBackend(Endpoint(url, "m")).generate([Prompt("b", "without")])
    assert state.log[-1][1] is None


def test_a_resume_file_has_one_writer(faulty, tmp_path):
    url, state = faulty
    state.reply = lambda self, body, text: time.sleep(0.5) or ("late", "stop", 1)
    file = tmp_path / "kept.jsonl"

    def first():
        ServedBackend(Endpoint(url, "m"), file).generate([Prompt("a", "hello")])

    worker = threading.Thread(target=first)
    worker.start()
    time.sleep(0.25)
    with pytest.raises(UserError, match="another process is writing it"):
        ServedBackend(Endpoint(url, "m"), file).generate([Prompt("b", "world")])
    worker.join()
    assert len(file.read_text().splitlines()) == 1


def test_ids_and_order_do_not_matter_to_the_resume_file(faulty, tmp_path):
    url, state = faulty
    ServedBackend(Endpoint(url, "m"), tmp_path / "k.jsonl").generate([Prompt("a", "one"), Prompt("b", "two")], Sampling(n=2, temperature=1))
    again = ServedBackend(Endpoint(url.replace("127.0.0.1", "localhost"), "m"), tmp_path / "k.jsonl")
    found = again.generate([Prompt("y", "two"), Prompt("x", "one")], Sampling(n=2, temperature=1))
    assert [(c.id, c.index, c.text) for c in found] == [(i, k, f"heard {t}") for i, t in (("y", "two"), ("x", "one")) for k in (0, 1)]
    assert again.usage.requests == 0 and again.usage.reused == 4
    changed = [{"seed": 1}, {"max_tokens": 9}, {"top_p": .5}, {"stop": ("x",)}]
    for difference in changed:
        again.generate([Prompt("x", "one")], Sampling(temperature=1, **difference))
    assert again.usage.requests == len(changed)
    assert not re.search(r"127\.0\.0\.1|localhost", (tmp_path / "k.jsonl").read_text())
