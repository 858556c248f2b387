/* What a trace shows of this guest besides interrupts and IPIs: how long each call takes its caller, how long a CPU waits
 * for a csd, and where a call's function begins. CPUs can be held there too. */
#include "lab.h"

#include "smp_lab.h"

LAB_STRETCH("call.enter", "call.done", "call");
LAB_WAITING_STRETCH("csd.wait-enter", "csd.wait-done", "csd wait", "csd_wait", "a CPU waits until a csd is unlocked");
LAB_POINT("call.run", 6);

void smp_lab_call_begins(unsigned long call)
{
    LAB_PROBE("call.enter", call, 0);
}

void smp_lab_call_ends(unsigned long call)
{
    LAB_PROBE("call.done", call, 0);
}

void smp_lab_call_runs(unsigned long call)
{
    LAB_PROBE("call.run", call, 0);
}

void smp_lab_wait_begins(void)
{
    LAB_PROBE("csd.wait-enter", 0, 0);
}

void smp_lab_wait_ends(void)
{
    LAB_PROBE("csd.wait-done", 0, 0);
}
