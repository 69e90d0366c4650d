"""Commands that the tests fork: they are what they stand for (warm.py)."""

import os
import subprocess
import sys

import pytest
import warm
from conftest import ROOT

PRINT = [sys.executable, "-m", "warm_print"]


@pytest.fixture
def module(tmp_path):
    """A module that says what it was given."""
    (tmp_path / "warm_print.py").write_text(
        "import os, sys\n"
        "loaded = {'torch._dynamo', 'bench.engine.run', 'seaborn'} <= set(sys.modules)\n"
        "print(__name__, sys.argv[1:], os.getcwd(), os.environ['OWN'], loaded)\n"
        "print(sys.stdin.read(), file=sys.stderr)\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    return tmp_path


def test_it_is_a_command_with_its_own_folder_and_output(module):
    options = {"cwd": module, "capture_output": True, "text": True, "timeout": 60}
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OWN": "1"}
    done = warm.run([*PRINT, "3"], env=env, **options)
    assert done.stdout == f"__main__ ['3'] {module} 1 True\n", "with everything loaded"
    assert (done.returncode, done.stderr.strip()) == (3, "")


def test_it_can_be_written_to_and_killed(module):
    pipe = subprocess.PIPE
    env = {**os.environ, "OWN": "1"}
    with warm.Popen([*PRINT, "0"], stdin=pipe, stderr=pipe, cwd=module, env=env, text=True) as one:
        one.stdin.write("said")
        one.stdin.close()
        assert one.stderr.read() == "said\n"
    assert one.returncode == 0
    with warm.Popen([*PRINT, "0"], stdin=pipe, cwd=module, env=env) as one:
        assert one.poll() is None
        one.kill()
    assert one.returncode == -9
