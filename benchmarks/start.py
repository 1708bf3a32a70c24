"""How long a start takes: processor seconds, and seconds on the clock, until there is something to show for it.

    python benchmarks/start.py --rounds 3

The least of the rounds counts. `import torch` is what nothing here goes below. Serving is timed until /health answers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

PYTHON = [sys.executable, "-c"]
CLI = [sys.executable, "-m", "unmask.cli"]
COMMANDS = {
    "import torch": [*PYTHON, "import torch"],
    "unmask --help": [*CLI, "--help"],
    "unmask.load()": [*PYTHON, "import unmask; unmask.load()"],
    "unmask fill": [*CLI, "fill", "def f(x):\n    <gap>\n    return y"],
    "unmask score": [*CLI, "score", "--quiet", "--text", "def f(x):\n    return x\n"],
}
PORT = 18765
TICK = os.sysconf("SC_CLK_TCK")


def ended(command: list[str]) -> tuple[float, float]:
    """(processor seconds, seconds on the clock) of a command that ends by itself."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, time.perf_counter() - start


def served() -> tuple[float, float]:
    """The same until the server says that it is ready."""
    start = time.perf_counter()
    command = [*CLI, "serve", "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _healthy():
            if server.poll() is not None:
                raise SystemExit(f"the server ended with {server.returncode}; is port {PORT} free?")
            time.sleep(0.02)
        return _used(server.pid), time.perf_counter() - start
    finally:
        server.terminate()
        server.wait()


def _healthy() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _used(process: int) -> float:
    """Processor seconds of a running process (Linux)."""
    with open(f"/proc/{process}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK  # utime, stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    starts: dict[str, Callable[[], tuple[float, float]]] = {
        name: lambda command=command: ended(command) for name, command in COMMANDS.items()
    }
    starts["unmask serve"] = served
    print(f"{'':16} processor    clock")
    for name, start in starts.items():
        used, clock = (min(column) for column in zip(*(start() for _ in range(rounds))))
        print(f"{name:16} {used:7.2f} s {clock:6.2f} s", flush=True)


if __name__ == "__main__":
    main()
