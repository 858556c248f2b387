"""Drives a machine over its control socket (`vmm --control SOCKET`), with nothing but the standard library.

    import ipi_lab

    with ipi_lab.start("vmm", "target/guest.bin", vcpus=3) as machine:
        machine.pause(1)
        deed = machine.tell(0, "call-many 1,2 wait")
        call = deed.wait_made()              # known at once, though the deed is not done
        call.wait_ran(2)
        assert not call.ran_on(1)
        machine.resume(1)
        deed.wait_done()
        machine.finish()

Every verb of the protocol (docs/control-socket.md) is a method of `Machine` with the verb's fields as keyword
arguments: `machine.hold(cpu=1, probe="queue.visit")`. Those that are written out below take and return more.
Limits are in seconds. A request that is refused raises `Refused`, whose `kind` is that of the protocol.
"""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time

__all__ = ["Call", "Deed", "Lost", "Machine", "Refused", "connect", "start"]

PROTOCOL = 3


class Refused(Exception):
    """The VMM said no."""

    def __init__(self, verb, answer):
        super().__init__(f"{verb}: {answer.get('error', 'refused')}")
        self.kind = answer.get("kind")
        self.answer = answer


class Lost(Exception):
    """Nobody answers."""


class Call:
    """A call that a CPU has made."""

    def __init__(self, machine, name):
        self.machine, self.name = machine, name

    def __str__(self):
        return f"call {self.name}"

    def look(self):
        """Its `targets`, the CPUs on which it `ran`, and whether it has `returned`."""
        return self.machine.ask("call", call=self.name)

    def ran(self):
        """The CPUs on which it has run."""
        return self.look()["ran"]

    def ran_on(self, cpu):
        """Whether it has run on a CPU."""
        return self.machine.ask("ran_on", call=self.name, cpu=cpu)["ran_on"]

    def wait_ran(self, *cpus, limit=None):
        """Waits until it has run on these CPUs; if there are none, on all its targets. Returns where it ran."""
        return self.machine.ask("wait_ran", call=self.name, cpus=list(cpus) or None, limit=limit)["ran"]


class Deed:
    """What a CPU was told to do."""

    def __init__(self, machine, cpu, number):
        self.machine, self.cpu, self.number = machine, cpu, number

    def wait_made(self, limit=None):
        """Waits until the call that it makes is in the ledger, and returns it."""
        made = self.machine.ask("wait_made", cpu=self.cpu, number=self.number, limit=limit)
        return Call(self.machine, made["call"])

    def wait_done(self, limit=None):
        """Waits until it is done, and returns what has come of it: `result`, `call` and `answer`."""
        return self.machine.ask("wait_done", cpu=self.cpu, number=self.number, limit=limit)


class Machine:
    """A machine, by one connection to its control socket. Use one in each thread."""

    def __init__(self, path, stream, vmm=None):
        self.path, self.vmm = path, vmm
        self._socket = stream
        self._lines = stream.makefile("rw", encoding="utf-8")

    def ask(self, verb, **fields):
        """Asks one thing, and returns the fields of the answer. A field that is None is left out."""
        fields = {name: value for name, value in fields.items() if value is not None}
        try:
            print(json.dumps({"verb": verb, **fields}), file=self._lines, flush=True)
            answer = {}
            while "ok" not in answer:  # what comes before it are events, if somebody asked for some here
                line = self._lines.readline()
                if not line:
                    raise Lost(f"{self.path}: the machine was over before it answered")
                answer = json.loads(line)
        except OSError as error:
            raise Lost(f"{self.path}: {error}") from error
        if not answer["ok"]:
            raise Refused(verb, answer)
        return answer

    def __getattr__(self, verb):
        if verb.startswith("_"):
            raise AttributeError(verb)

        def ask(cpu=None, **fields):
            return self.ask(verb, cpu=cpu, **fields)

        ask.__name__ = verb
        return ask

    def tell(self, cpu, deed, limit=None):
        """Tells a CPU to do something, as soon as it has done what it was told before."""
        return Deed(self, cpu, self.ask("tell", cpu=cpu, deed=deed, limit=limit)["number"])

    def do(self, cpu, deed, limit=None):
        """Tells a CPU to do something, waits until it is done, and returns what has come of it."""
        return self.ask("tell", cpu=cpu, deed=deed, until="done", limit=limit)

    def events(self, *kinds):
        """Subscribes, and returns an iterator of what happens from now on, until the machine is over: an object
        for each, whose `event` is `held`, `done`, `finding`, `died`, `ended` or `dropped`. `kinds` chooses some.
        The subscription has a connection of its own, so that other requests can be made meanwhile."""
        other = connect(self.path)
        other.ask("subscribe", events=list(kinds) or None)
        return other._events()

    def _events(self):
        with self._socket:
            for line in self._lines:
                yield json.loads(line)

    def close(self):
        """Ends the connection; and the VMM, if `start` has started one that has not ended."""
        # Closing sends what is left of a request that could not be sent.
        with contextlib.suppress(OSError):
            self._lines.close()
        self._socket.close()
        if self.vmm is not None and self.vmm.poll() is None:
            self.vmm.terminate()
            self.vmm.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def connect(path, limit=10.0, vmm=None):
    """Connects to the control socket at `path`; waits for it for up to `limit` seconds. If `vmm` is the process
    that is to listen there, for no longer than that lives."""
    deadline = time.monotonic() + limit
    while True:
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.connect(path)
            break
        except (FileNotFoundError, ConnectionRefusedError) as error:
            stream.close()
            if vmm is not None and vmm.poll() is not None:
                raise Lost(f"the VMM has ended with status {vmm.returncode}") from error
            if time.monotonic() >= deadline:
                raise Lost(f"{path}: {error}; is there a vmm --control {path} running?") from error
            time.sleep(0.01)
    machine = Machine(path, stream, vmm)
    protocol = machine.ask("hello")["protocol"]
    if protocol != PROTOCOL:
        machine.close()
        raise Lost(f"{path}: it speaks protocol {protocol}, and this is written for {PROTOCOL}")
    return machine


class _Started(Machine):
    """A machine of this program's own, whose socket is in a directory of its own."""

    def close(self):
        try:
            super().close()
        finally:
            self._directory.cleanup()


def start(vmm, guest, vcpus=1, append="workload=puppet", options=()):
    """Starts `vmm` with a `guest`, and returns the machine once its CPUs are up. The end of the `with` block ends
    what has not ended by then. `machine.vmm` is the process; its `wait()` returns the exit status."""
    directory = tempfile.TemporaryDirectory()
    path = os.path.join(directory.name, "control")
    words = [vmm, "--vcpus", str(vcpus), "--append", append, "--control", path, *options, guest]
    process = subprocess.Popen(words)
    try:
        machine = connect(path, limit=60.0, vmm=process)
        machine.__class__ = _Started
        machine._directory = directory
        machine.ask("ready", limit=60)
        return machine
    except BaseException as error:
        status = None
        if isinstance(error, (Lost, Refused)):
            # It may be about to end by itself, and says why.
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(timeout=5)
        process.terminate()
        process.wait()
        directory.cleanup()
        if status is None:
            raise
        raise Lost(f"the VMM ended with status {status} before its guest was ready") from error
