/* Writes 32 bytes to standard output that the SEV-SNP firmware derives for this chip (VCEK root key), the policy
 * and the measurement of this guest: SNP_GET_DERIVED_KEY of /dev/sev-guest (SEV-SNP ABI 7.2, linux/sev-guest.h).
 * Compile:  cc -O2 -Wall -Wextra -Werror -o snp-derived-key native/snp-derived-key.c
 * Run as a user that may open /dev/sev-guest. Takes no argument and reads no input. Exit: 0 the key was written;
 * 1 no device, or it refused. It says on standard error which step failed, never a byte of the key. */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* As in linux/sev-guest.h, written out so that old kernel headers do. */
struct derived_key_request {
  uint32_t root_key_select; /* 0: VCEK (with SNP_GUEST_FIELD_SELECT below) */
  uint32_t reserved;
  uint64_t guest_field_select;
  uint32_t vmpl;
  uint32_t guest_svn;
  uint64_t tcb_version;
};
struct derived_key_response {
  uint8_t data[64]; /* status u32, reserved 28 bytes, key 32 bytes (ABI table 20) */
};
struct guest_request {
  uint8_t message_version;
  uint64_t request;
  uint64_t response;
  uint64_t exit_info_2;
};
#define GET_DERIVED_KEY _IOWR('S', 0x1, struct guest_request)

#define FIELD_GUEST_POLICY (1u << 0)
#define FIELD_MEASUREMENT (1u << 3)
#define KEY_AT 32
#define KEY_BYTES 32

static int failed(const char *step) {
  fprintf(stderr, "snp-derived-key: %s: %s\n", step, strerror(errno));
  return 1;
}

int main(void) {
  int device = open("/dev/sev-guest", O_RDWR | O_CLOEXEC);
  if (device < 0) return failed("open /dev/sev-guest");

  struct derived_key_request asked;
  struct derived_key_response given;
  struct guest_request request;
  memset(&asked, 0, sizeof asked);
  memset(&given, 0, sizeof given);
  memset(&request, 0, sizeof request);
  asked.guest_field_select = FIELD_GUEST_POLICY | FIELD_MEASUREMENT;
  request.message_version = 1;
  request.request = (uint64_t)(uintptr_t)&asked;
  request.response = (uint64_t)(uintptr_t)&given;

  if (ioctl(device, GET_DERIVED_KEY, &request) != 0) return failed("SNP_GET_DERIVED_KEY");
  close(device);
  uint32_t status;
  memcpy(&status, given.data, sizeof status);
  if (status != 0) {
    fprintf(stderr, "snp-derived-key: the firmware answered status %u\n", status);
    return 1;
  }

  for (size_t written = 0; written < KEY_BYTES;) {
    ssize_t n = write(STDOUT_FILENO, given.data + KEY_AT + written, KEY_BYTES - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed("write");
    written += (size_t)n;
  }
  volatile uint8_t *bytes = given.data;
  for (size_t i = 0; i < sizeof given.data; i++) bytes[i] = 0;
  return 0;
}
