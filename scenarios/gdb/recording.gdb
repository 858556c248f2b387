# Commands for `vmm replay SCHEDULE IMAGE --gdb ADDRESS`: source this in gdb.

define goto-turn
  monitor goto $arg0
  maintenance flush register-cache
  maintenance flush dcache
end
document goto-turn
Go to where a turn begins, or behind a stop of it: goto-turn 6, goto-turn 6.15, goto-turn end.
gdb does not notice by itself that `monitor goto` moves the machine. `info threads` shows who goes on there.
end
