//! A machine's clock that a test sets: a host that is started with it takes the time of day from here, and nothing else.

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// Stands before the C library's own. The offset is read from a file that both have in memory.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *seen = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (seen != MAP_FAILED) offset = seen;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && offset) now->tv_sec += *offset;
    return (int)failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    (void)zone;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}
"#;

/// One clock; as long as nobody sets it, it is the machine's.
pub(crate) struct MachineClock {
    folder: TempDir,
    offset: File,
}

impl MachineClock {
    pub(crate) fn new() -> MachineClock {
        let folder = TempDir::new().expect("a temporary folder");
        // A server that goes by it is another user's.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is this process's own");
        let offset = File::create(folder.path().join("offset")).expect("a file");
        offset.write_all_at(&0_i64.to_ne_bytes(), 0).expect("written");
        MachineClock { folder, offset }
    }

    /// From now on it is so many seconds ahead of the machine's.
    pub(crate) fn set(&self, seconds: i64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).expect("written");
    }

    /// What a process needs in its environment to go by it.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", library()), ("TEST_CLOCK", self.folder.path().join("offset"))]
    }
}

/// Built once, with the compiler by which Rust links.
fn library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let named = |end: &str| folder.join(format!("clock-{}.{end}", std::process::id()));
        let (source, new, library) = (named("c"), named("so"), folder.join("clock.so"));
        std::fs::write(&source, SOURCE).expect("written");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&new, &source]).output();
        let built = built.expect("cc runs: Rust links with it");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        // At once, for tests of another process that use it.
        std::fs::rename(&new, &library).expect("it can be renamed");
        std::fs::remove_file(&source).expect("it was there");
        library
    };
    BUILT.get_or_init(build).clone()
}
