#define tick_nohz_tick_stopped() 0
