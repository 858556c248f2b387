/* One node. */
#ifndef LAB_LINUX_TOPOLOGY_H
#define LAB_LINUX_TOPOLOGY_H
#define cpu_to_node(cpu) ((void)(cpu), 0)
#define cpumask_of_node(node) ((void)(node), cpu_possible_mask)
#define num_online_nodes() 1
#endif
