# The lost call of February 2009, from the finding back to the store that moved the element on which another CPU stood.
#
#   vmm explore scenarios/explore/lost-call.case target/explore.bin --append queue=fifo --memory sc --schedule lost.json
#   vmm replay lost.json target/explore.bin --gdb lab.gdb
#   gdb -q -ex 'target remote lab.gdb' -x scenarios/gdb/lost-call.gdb target/explore.bin

set pagination off
set width 0
set confirm off
# Of the functions of Rust's core there is no source here.
skip -gfile */library/core/*

echo \n-- To the end, where something is broken.\n
continue
monitor breaks

echo \n-- Back to the last store to the link of CPU 0's element in the list.\n
python
address = gdb.execute("monitor address GUEST.ipi.many.elements.list.links[0].next", to_string=True)
gdb.execute("watch *(unsigned int *) " + address)
end
reverse-continue
monitor where
backtrace -frame-info location -frame-arguments none 5

echo \n-- CPU 0 puts its element at the tail of the list, for its next call. Where are the others?\n
info threads
delete

echo \n-- CPU 2 stands on that element, and is about to read the link. Forward to its next instruction:\n
thread 3
stepi
monitor where
backtrace -frame-info location -frame-arguments none 4
print/x *dst

echo \n-- It reads the end of the list (HEAD), and not CPU 3's element: CPU 3's call is never seen.\n
