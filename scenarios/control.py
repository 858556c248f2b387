#!/usr/bin/env python3
"""A scenario from outside: drives a machine over its control socket, with nothing but the standard library.

    scenarios/control.py SOCKET                   a vmm --control SOCKET with a puppet guest is running
    scenarios/control.py --vmm VMM GUEST          starts one, and ends it

CPU 1 is kept out of the guest while CPU 0 calls CPUs 1 and 2. The call runs on CPU 2, and on CPU 1 as soon
as it is back. Exits with 0 if it was so.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time


class Machine:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rw", encoding="utf-8")

    def ask(self, verb, **fields):
        """Asks one thing, and returns the answer's fields."""
        print(json.dumps({"verb": verb, **fields}), file=self.lines, flush=True)
        answer = json.loads(self.lines.readline() or '{"ok": false, "error": "the machine is over"}')
        if not answer["ok"]:
            raise SystemExit(f"{verb}: {answer['error']}")
        return answer

    def tell(self, cpu, deed):
        """Tells a CPU to do something, waits until it is done, and returns what came of it."""
        told = self.ask("tell", cpu=cpu, deed=deed)
        return self.ask("wait_done", cpu=cpu, number=told["number"])


def play(machine):
    # A CPU that answers is up.
    for cpu in range(3):
        machine.tell(cpu, "idle")
    machine.ask("pause", cpu=1)
    call = machine.tell(0, "call-many 1,2")["call"]
    machine.ask("wait_ran", call=call, cpus=[2])
    while_away = machine.ask("call", call=call)["ran"]
    print(f"CPU 1 is away, and the call has run on CPUs {while_away}")
    machine.ask("resume", cpu=1)
    back = machine.ask("wait_ran", call=call)["ran"]
    print(f"CPU 1 is back, and it has run on CPUs {back}")
    machine.ask("finish")
    return while_away == [2] and back == [1, 2]


def connect(path, vmm):
    """Waits for the socket as long as the VMM lives."""
    while True:
        try:
            return Machine(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if vmm.poll() is not None:
                raise SystemExit("the VMM ended before anybody could connect")
            time.sleep(0.01)


def main(arguments):
    if len(arguments) == 1:
        return play(Machine(arguments[0]))
    if len(arguments) != 3 or arguments[0] != "--vmm":
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "control")
        options = ["--vcpus", "3", "--append", "workload=puppet", "--control", path]
        with subprocess.Popen([arguments[1], *options, arguments[2]]) as vmm:
            try:
                as_it_should = play(connect(path, vmm))
                return vmm.wait() == 0 and as_it_should
            finally:
                vmm.terminate()


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
