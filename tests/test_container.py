"""The image and the job of docs/kubernetes.md, read as text: no container engine is at hand."""

import json
import re
from pathlib import PurePath

import yaml
from conftest import ROOT

from bench.store.merge import words_of

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_what_the_image_copies_is_sent_to_it():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    left_out = [line for line in lines if line and line[0] not in "#!"]
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (.+)$", DOCKERFILE, re.M)]
    for source in (word for words in copied for word in words):
        assert (ROOT / source).exists()
        if source not in kept:
            assert not [one for one in left_out if PurePath(source).match(one)], source
    assert {".git", ".venv", "reports", "results/*"} <= {*left_out}


def test_merge_works_behind_the_entrypoint():
    words = json.loads(re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.M)[0])
    assert words[:3] == ["python", "-m", "bench.grid"]
    assert words_of([*words[3:], "merge", "DIR"]) == [*words[3:], "DIR"]


def test_a_job_gives_a_share_up_only_for_what_would_happen_again():
    """Exit codes 1 to 3 fail its index; a pod that was stopped is started again."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    spec = yaml.safe_load(re.findall(r"```yaml\n(.+?)```", page, re.S)[0])["spec"]
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "a policy for failures needs it"
    assert spec["backoffLimitPerIndex"] > 0
    codes = [
        rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    ]
    assert codes == [
        {"containerName": pod["containers"][0]["name"], "operator": "In", "values": [1, 2, 3]}
    ]
