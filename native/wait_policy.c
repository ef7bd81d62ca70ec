// Threads of libgomp spin while they wait for work. On a machine with other load they take the processor
// from the threads they wait for, and a training step takes several times as long. libgomp reads
// OMP_WAIT_POLICY in its constructor and has no function to change it, so that this program sets the
// variable and starts itself once more, before any library's constructor has run. A value of the user's
// own is kept. Linked into the program only, not into the library.

#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

// Says that the policy was set here, and keeps a failed attempt from being repeated.
static char marker[] = "VISAGE_SET_WAIT_POLICY=1";
static char policy[] = "OMP_WAIT_POLICY=passive";

static int starts_with(const char *text, const char *start) { return strncmp(text, start, strlen(start)) == 0; }

static void set_wait_policy(int argc, char **argv, char **envp) {
  (void)argc;
  size_t count = 0;
  for (; envp[count] != NULL; ++count)
    if (starts_with(envp[count], "OMP_WAIT_POLICY=") || starts_with(envp[count], "GOMP_SPINCOUNT=") ||
        starts_with(envp[count], "VISAGE_SET_WAIT_POLICY="))
      return;
  // Started as `ld.so visage`, where /proc/self/exe is ld.so.
  if (getauxval(AT_BASE) == 0) return;
  char file[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", file, sizeof file - 1);
  if (length <= 0) return;
  file[length] = '\0';
  char *with[count + 3];
  memcpy(with, envp, count * sizeof *with);
  with[count] = policy;
  with[count + 1] = marker;
  with[count + 2] = NULL;
  execve(file, argv, with); // returns only if it fails; the program then runs as it is
}

__attribute__((section(".preinit_array"), used)) static void (*const first)(int, char **, char **) =
    set_wait_policy;

// Runs after libgomp's constructor: programs started from here choose for themselves.
__attribute__((constructor)) static void restore_environment(void) {
  if (getenv("VISAGE_SET_WAIT_POLICY") == NULL) return;
  unsetenv("VISAGE_SET_WAIT_POLICY");
  unsetenv("OMP_WAIT_POLICY");
}
