#ifndef LAB_LINUX_INIT_H
#define LAB_LINUX_INIT_H
#include <linux/compiler.h>
#define __init
#define __initdata
#define __read_mostly
#define __setup(text, function)
#define early_param(text, function)
#define module_param(name, type, mode)
#define early_initcall(function)
#define core_initcall(function)
#define pure_initcall(function)
#define late_initcall(function)
#endif
