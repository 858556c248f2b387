#!/usr/bin/env python3
"""A scenario from outside: drives a machine over its control socket, with nothing but the standard library.

    scenarios/control.py SOCKET                   a vmm --control SOCKET with a puppet guest of 3 CPUs is running
    scenarios/control.py --vmm VMM GUEST          starts one, and ends it

CPU 1 is kept out of the guest while CPU 0 calls CPUs 1 and 2 and waits. The call runs on CPU 2, and on CPU 1 as
soon as it is back. Exits with 0 if it was so.
"""

import sys

import ipi_lab


def play(machine):
    machine.ready()
    for cpu in range(3):
        # Somebody may have driven this machine before, and armed a probe.
        machine.disarm(cpu)
    done = machine.events("done")
    machine.pause(1)
    deed = machine.tell(0, "call-many 1,2 wait")
    call = deed.wait_made()
    while_away = call.wait_ran(2)
    print(f"CPU 1 is away, and {call} has run on CPUs {while_away}")
    machine.resume(1)
    # The caller waits for its call, so it is done when that has run everywhere.
    told = next(event for event in done if (event["cpu"], event["number"]) == (0, deed.number))
    back = call.ran()
    print(f"CPU 1 is back, and it has run on CPUs {back}")
    machine.finish()
    return while_away == [2] and back == [1, 2] and told["call"] == call.name


def main(arguments):
    if len(arguments) == 1 and not arguments[0].startswith("-"):
        with ipi_lab.connect(arguments[0]) as machine:
            return play(machine)
    if len(arguments) != 3 or arguments[0] != "--vmm":
        raise SystemExit(__doc__)
    with ipi_lab.start(arguments[1], arguments[2], vcpus=3) as machine:
        as_it_should = play(machine)
        return machine.vmm.wait() == 0 and as_it_should


if __name__ == "__main__":
    try:
        sys.exit(0 if main(sys.argv[1:]) else 1)
    except (ipi_lab.Refused, ipi_lab.Lost) as error:
        sys.exit(f"control.py: {error}")
