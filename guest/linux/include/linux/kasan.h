#define kasan_record_aux_stack_noalloc(address) ((void)(address))
#define kasan_record_aux_stack(address) ((void)(address))
