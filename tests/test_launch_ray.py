"Recipes on a Ray cluster of two nodes: placed by what they ask for, made again when a process dies, recorded once."
import json
import os
import signal

import pytest
from test_runs import digest, kernels, start, wait_for
from toy import executed

ray = pytest.importorskip("ray", reason="needs ray: pip install -e .[ray]")


@pytest.fixture(scope="module")
def cluster():
    "Two nodes of one core each, on this machine."
    from ray.cluster_utils import Cluster
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
        two = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False, "no_monitor": True})
        two.add_node(**small)
        yield two.address
        two.shutdown()


def proc(pid, name):
    return open(f"/proc/{pid}/{name}").read()


def test_recipes_run_on_two_nodes_and_are_reused(cluster, repo):
    root = repo(a="", b="raise ValueError('no luck')")
    words = ["reproduce", "--launcher", "ray", "--address", cluster]
    r = digest(*words)
    assert r.returncode == 1, r.stderr
    assert sorted(executed(root)) == ["a", "b"] and "hot/b tiny: failed: ValueError: no luck" in r.stdout
    assert "hot/a: started" in r.stderr and not list((root / "runs").glob(".ray-*"))
    again = digest(*words)
    assert sorted(executed(root)) == ["a", "b", "b"] and again.returncode == 1   # only the failed one runs again
    assert "hot/a tiny: unchanged, reused" in again.stdout


def test_a_killed_process_is_retried_and_the_record_written_once(cluster, repo):
    root = repo(a="time.sleep(3)")
    p = start("reproduce", "--launcher", "ray", "--address", cluster, "--seed", 3)
    wait_for(lambda: executed(root) == ["a"])
    worker = next(pid for pid in kernels(root) if "execute_job" in proc(pid, "cmdline"))
    os.kill(int(proc(worker, "stat").rsplit(")", 1)[1].split()[1]), signal.SIGKILL)  # its parent: the process of Ray
    out, err = p.communicate(timeout=120)
    assert p.returncode == 0 and executed(root) == ["a", "a"] and not kernels(root), err
    folder, = (root / "runs/hot/a").iterdir()
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "done" and record["seeds"] == [3]
    assert err.count("hot/a seed 3 tiny: done") == 1 and not (folder / ".record.json.part").exists()


def test_ctrl_c_ends_what_runs_on_the_nodes(cluster, repo):
    root = repo(a="time.sleep(60)")
    p = start("reproduce", "--launcher", "ray", "--address", cluster)
    wait_for(lambda: executed(root) == ["a"])
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=150)
    assert p.returncode == 130 and "the same command goes on from there" in err
    wait_for(lambda: not kernels(root), 60)
    assert not list((root / "runs/hot/a").glob("*/record.json"))
