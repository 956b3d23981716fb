"""The edge of every command: one line and the right exit code, through a real process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
COMMAND = '''
"""A small command."""
import sys
sys.path.insert(0, {scripts!r})
from absl import flags
import program

COUNT = flags.DEFINE_integer("count", 0, "a number", lower_bound=0)

def main():
  print("count", COUNT.value)
  {body}

if __name__ == "__main__":
  program.run(main)
'''


def call(tmp_path: Path, body: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
  path = tmp_path / "command.py"
  path.write_text(COMMAND.format(scripts=str(SCRIPTS), body=body))
  return subprocess.run(
    [sys.executable, str(path), *arguments],
    capture_output=True,
    text=True,
    timeout=60,
    env={**os.environ, **environment},
  )


def one_line(result: subprocess.CompletedProcess[str]) -> str:
  """Returns the one line of stderr; fails where there are none or several."""
  lines = result.stderr.splitlines()
  assert len(lines) == 1, result.stderr
  assert lines[0].startswith("error: ")
  return lines[0]


@pytest.mark.parametrize(("body", "code"), [("pass", 0), ("return 0", 0), ("return 3", 3), ("return 75", 75)])
def test_main_decides_the_exit_code(tmp_path: Path, body: str, code: int) -> None:
  result = call(tmp_path, body, "--count=4")
  assert (result.returncode, result.stdout, result.stderr) == (code, "count 4\n", "")


@pytest.mark.parametrize(
  ("argument", "named"),
  [("--cuont=3", "cuont"), ("--count=many", "many"), ("--count=-1", "count"), ("--count", "count")],
)
def test_wrong_flags_are_wrong_usage(tmp_path: Path, argument: str, named: str) -> None:
  result = call(tmp_path, "pass", argument)
  assert result.returncode == 2
  assert named in one_line(result)
  assert result.stdout == ""


def test_a_positional_argument_is_refused(tmp_path: Path) -> None:
  result = call(tmp_path, "pass", "smd")
  assert result.returncode == 2
  assert one_line(result) == "error: unexpected argument 'smd'; every option is a flag: --name=value"
  assert result.stdout == ""


@pytest.mark.parametrize(
  ("body", "line"),
  [
    ("raise ValueError(\"a.csv: row 3: 'x' is\\n  not a number\")", "a.csv: row 3: 'x' is not a number"),
    ('raise FileNotFoundError(2, "No such file or directory", "gone.txt")', "gone.txt"),
  ],
)
def test_a_failure_is_one_line(tmp_path: Path, body: str, line: str) -> None:
  result = call(tmp_path, body)
  assert result.returncode == 1
  assert line in one_line(result)


def test_wrong_settings_are_wrong_usage(tmp_path: Path) -> None:
  result = call(tmp_path, 'raise program.UsageError("--workdir is missing")')
  assert result.returncode == 2
  assert one_line(result) == "error: --workdir is missing"


def test_the_traceback_is_there_for_who_asks(tmp_path: Path) -> None:
  result = call(tmp_path, 'raise ValueError("row 3")', MTAD_TRACEBACK="1")
  assert result.returncode == 1
  assert "Traceback" in result.stderr
  assert "ValueError: row 3" in result.stderr


def test_a_fault_of_the_program_is_not_hidden(tmp_path: Path) -> None:
  """Only told failures are one line; anything else is a bug and shows its traceback."""
  result = call(tmp_path, "raise IndexError(3)")
  assert result.returncode not in (0, 2)
  assert "Traceback" in result.stderr


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_is_one_line_and_says_run_again(tmp_path: Path, number: str) -> None:
  body = f"import os, signal, time; os.kill(os.getpid(), signal.{number}); time.sleep(50)"
  result = call(tmp_path, body)
  assert result.returncode == 75
  assert "interrupted; run the same command again" in one_line(result)


def test_help_names_the_flags(tmp_path: Path) -> None:
  result = call(tmp_path, "pass", "--help")
  assert "--count" in result.stdout + result.stderr
  assert "Traceback" not in result.stderr


# the other files in scripts/ are shared by commands and run none
COMMANDS = [path for path in sorted(SCRIPTS.glob("*.py")) if '__name__ == "__main__"' in path.read_text()]


def test_commands_were_found() -> None:
  assert {"prepare", "report"} <= {path.stem for path in COMMANDS}


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_every_command_refuses_an_unknown_flag(path: Path) -> None:
  result = subprocess.run(
    [sys.executable, str(path), "--no_such_flag=1"],
    capture_output=True,
    text=True,
    timeout=120,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )
  assert result.returncode == 2, result.stderr
  assert "no_such_flag" in one_line(result)
