#ifndef LAB_LINUX_JUMP_LABEL_H
#define LAB_LINUX_JUMP_LABEL_H
#define DEFINE_STATIC_KEY_MAYBE(config, name) int name = 1
#define DEFINE_STATIC_KEY_FALSE(name) int name
#define DECLARE_STATIC_KEY_FALSE(name) extern int name
#define static_branch_unlikely(key) (*(key))
#define static_branch_likely(key) (*(key))
#define static_branch_enable(key) (*(key) = 1)
#define static_branch_disable(key) (*(key) = 0)
#endif
