/*
 * A plugin that asks to see each translated block and does nothing with it: what any plugin of QEMU that looks at code costs at least.
 * Compiled by the benchmark with -DAPI=N. QEMU passes an id first up to version 6 of its API and userdata last since version 7; nothing
 * here looks at either.
 */
#include <stdint.h>

extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*callback)(void), void *userdata);

__attribute__((visibility("default"))) int qemu_plugin_version = API;

static void translated(void)
{
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	(void)info, (void)argc, (void)argv;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, 0);
	return 0;
}
