'use strict';

/*
 * The lanes of those who drive a machine: a script, the clients of the socket, the program, planned stalls. They
 * stand above the lanes of the CPUs.
 */

/** What stands in place of a CPU for an item in such a lane: this for the first, one less for each that follows. */
const FIRST_DRIVER = -2;

/** The lanes of `driven`, whose items `add` makes, and `nested` puts into rows. */
function driverLanes(driven, add, nested) {
  return driven.map((list, number) => ({
    name: list.lane,
    parts: [{ name: '', rows: nested(add(list, FIRST_DRIVER - number, () => KIND.driven), ROW.guest) }],
    shades: [],
  }));
}

/** The place among `driven` of the lane of an item; `undefined` if it is in a lane of a CPU. */
const driverOf = (cpu) => (cpu <= FIRST_DRIVER ? FIRST_DRIVER - cpu : undefined);
