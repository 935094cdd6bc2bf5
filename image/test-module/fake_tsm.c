// SPDX-License-Identifier: GPL-2.0
/*
 * Test only: a configfs-tsm provider without hardware. Registers as "sev_guest" and hands each request to whoever has
 * /dev/fake_tsm open: a read gives the 64 bytes of inblob, a write of { le32 outblob length, le32 auxblob length, outblob,
 * auxblob } answers it. Everything between configfs and the provider is the kernel's own code.
 */
#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/tsm.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#define REPORT_DATA 64
#define MAX_ANSWER (64 * 1024)

static DEFINE_MUTEX(one_request);
static DECLARE_WAIT_QUEUE_HEAD(asked);
static DECLARE_COMPLETION(answered);
static bool pending;
static u8 request[REPORT_DATA];
static u8 *answer;
static size_t answer_len;

static int report_new(struct tsm_report *report, void *data)
{
	u32 out, aux;
	int err = 0;

	if (report->desc.inblob_len != REPORT_DATA)
		return -EINVAL;
	if (mutex_lock_interruptible(&one_request))
		return -EINTR;
	memcpy(request, report->desc.inblob, REPORT_DATA);
	reinit_completion(&answered);
	WRITE_ONCE(pending, true);
	wake_up_interruptible(&asked);
	if (!wait_for_completion_timeout(&answered, 30 * HZ)) {
		err = -ETIMEDOUT;
		goto done;
	}
	out = le32_to_cpup((__le32 *)answer);
	aux = le32_to_cpup((__le32 *)(answer + 4));
	if (out > answer_len - 8 || aux > answer_len - 8 - out) {
		err = -EIO;
		goto done;
	}
	report->outblob = kvmemdup(answer + 8, out, GFP_KERNEL);
	report->outblob_len = out;
	if (aux) {
		report->auxblob = kvmemdup(answer + 8 + out, aux, GFP_KERNEL);
		report->auxblob_len = aux;
	}
	if (!report->outblob || (aux && !report->auxblob))
		err = -ENOMEM;
done:
	WRITE_ONCE(pending, false);
	mutex_unlock(&one_request);
	return err;
}

static bool attr_visible(int n)
{
	return n == TSM_REPORT_GENERATION || n == TSM_REPORT_PROVIDER || n == TSM_REPORT_PRIVLEVEL ||
	       n == TSM_REPORT_PRIVLEVEL_FLOOR;
}

static bool bin_attr_visible(int n)
{
	return n == TSM_REPORT_INBLOB || n == TSM_REPORT_OUTBLOB || n == TSM_REPORT_AUXBLOB;
}

static const struct tsm_ops ops = {
	.name = "sev_guest",
	.report_new = report_new,
	.report_attr_visible = attr_visible,
	.report_bin_attr_visible = bin_attr_visible,
};

static ssize_t fake_read(struct file *file, char __user *to, size_t len, loff_t *off)
{
	if (len < REPORT_DATA)
		return -EINVAL;
	if (wait_event_interruptible(asked, READ_ONCE(pending)))
		return -EINTR;
	return copy_to_user(to, request, REPORT_DATA) ? -EFAULT : REPORT_DATA;
}

static ssize_t fake_write(struct file *file, const char __user *from, size_t len, loff_t *off)
{
	if (len < 8 || len > MAX_ANSWER)
		return -EINVAL;
	if (!READ_ONCE(pending))
		return -ENOMSG;
	if (copy_from_user(answer, from, len))
		return -EFAULT;
	answer_len = len;
	WRITE_ONCE(pending, false);
	complete(&answered);
	return len;
}

static const struct file_operations fops = {
	.owner = THIS_MODULE,
	.read = fake_read,
	.write = fake_write,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "fake_tsm",
	.fops = &fops,
	.mode = 0600,
};

static int __init fake_init(void)
{
	int err;

	answer = kmalloc(MAX_ANSWER, GFP_KERNEL);
	if (!answer)
		return -ENOMEM;
	err = misc_register(&device);
	if (!err) {
		err = tsm_register(&ops, NULL);
		if (err)
			misc_deregister(&device);
	}
	if (err)
		kfree(answer);
	return err;
}

static void __exit fake_exit(void)
{
	tsm_unregister(&ops);
	misc_deregister(&device);
	kfree(answer);
}

module_init(fake_init);
module_exit(fake_exit);
MODULE_DESCRIPTION("Test-only TSM provider with an upcall");
MODULE_LICENSE("GPL");
