// Threads of libgomp spin for several milliseconds while they wait for work. On a busy machine they take
// the processor from the threads they wait for, and a training step takes several times as long. libgomp
// reads GOMP_SPINCOUNT in its constructor and has no function to change it, so this program sets the
// variable and executes itself again, before the constructors of libraries. Variables set by the user
// take precedence. Linked into the program only, not into the library.

#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

// Long enough for the gaps between the operators of a training step.
static char spin_count[] = "GOMP_SPINCOUNT=10000";
// Marks the second start.
static char marker[] = "VISAGE_SET_SPIN_COUNT=1";

static int starts_with(const char *text, const char *start) { return strncmp(text, start, strlen(start)) == 0; }

static void set_spin_count(int argc, char **argv, char **envp) {
  (void)argc;
  size_t count = 0;
  for (; envp[count] != NULL; ++count)
    if (starts_with(envp[count], "OMP_WAIT_POLICY=") || starts_with(envp[count], "GOMP_SPINCOUNT=") ||
        starts_with(envp[count], "VISAGE_SET_SPIN_COUNT="))
      return;
  // Started as `ld.so visage`: /proc/self/exe is ld.so.
  if (getauxval(AT_BASE) == 0) return;
  char file[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", file, sizeof file - 1);
  if (length <= 0) return;
  file[length] = '\0';
  char *with[count + 3];
  memcpy(with, envp, count * sizeof *with);
  with[count] = spin_count;
  with[count + 1] = marker;
  with[count + 2] = NULL;
  execve(file, argv, with); // returns only on failure; the program then continues
}

__attribute__((section(".preinit_array"), used)) static void (*const first)(int, char **, char **) =
    set_spin_count;

// Runs after libgomp's constructor. Child processes do not inherit the variables.
__attribute__((constructor)) static void restore_environment(void) {
  if (getenv("VISAGE_SET_SPIN_COUNT") == NULL) return;
  unsetenv("VISAGE_SET_SPIN_COUNT");
  unsetenv("GOMP_SPINCOUNT");
}
